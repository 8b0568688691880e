"""The ground under every test of the mirror: does the stack behave as a Supabase project does?"""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from postgrest.exceptions import APIError
from supabase import acreate_client

from tests.integration.notes import as_service, as_user, folder, insert, noted, running_stack, stack
from tests.stack import Stack, StackError

__all__ = ["folder", "running_stack", "stack"]

ANN, BOB = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"


async def test_the_service_key_passes_row_level_security(stack: Stack) -> None:
    client = await as_service(stack)
    await client.table("notes").insert([{"id": 1}, {"id": 2}]).execute()
    assert len((await client.table("notes").select("*").execute()).data) == 2
    assert (await client.rpc("whoami").execute()).data == "service_role"


async def test_a_user_sees_and_writes_only_what_is_theirs(stack: Stack) -> None:
    ann, bob = [await as_user(stack, stack.user_key(user)) for user in (ANN, BOB)]
    await ann.table("notes").insert({"id": 1, "said": "mine"}).execute()
    assert (await ann.table("notes").select("*").execute()).data == [{"id": 1, "owner": ANN, "said": "mine"}]
    assert (await bob.table("notes").select("*").execute()).data == []
    with pytest.raises(APIError, match="row-level security"):
        await bob.table("notes").insert({"id": 2, "owner": ANN}).execute()
    assert (await ann.rpc("whoami").execute()).data == "authenticated"


async def test_without_a_user_the_anon_key_sees_nothing_of_anybody(stack: Stack) -> None:
    stack.sql("insert into notes (id) values (1)")
    anon = await acreate_client(stack.url, stack.anon_key)
    assert (await anon.table("notes").select("*").execute()).data == []
    assert (await anon.rpc("whoami").execute()).data == "anon"


async def test_a_token_that_has_expired_or_was_signed_by_another_is_refused(
    stack: Stack, folder: Path
) -> None:
    for token in (stack.key("service_role", expires_in_s=-60), stack.service_key[:-4] + "AAAA"):
        client = await as_user(stack, token)
        with pytest.raises(APIError, match=r"JWT|JWS"):
            await client.table("notes").select("*").execute()


@pytest.mark.parametrize(
    ("path", "key", "status", "said"),
    [
        ("/rest/v1/notes", None, 401, "No API key found in request"),
        ("/rest/v1/notes", "wrong", 401, "Invalid API key"),
        ("/elsewhere", "wrong", 404, "no Route matched with those values"),
    ],
)
def test_the_gateway_itself_refuses_what_supabase_refuses(
    stack: Stack, path: str, key: str | None, status: int, said: str
) -> None:
    answer = httpx.get(stack.url + path, headers={"apikey": key} if key else {})
    assert (answer.status_code, answer.json()["message"]) == (status, said)


def test_migrations_are_recorded_and_applied_once(stack: Stack, folder: Path) -> None:
    recorded = stack.sql("select version, name from supabase_migrations.schema_migrations order by version")
    assert recorded == [
        {"version": "20260101000000", "name": "tables"},
        {"version": "20260102000000", "name": "index"},
    ]
    assert stack.migrate(folder) == []


def test_a_migration_that_fails_is_named_and_leaves_nothing(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "20260103000000_half.sql").write_text("create table half (); select nonsense")
    with pytest.raises(StackError, match=r"20260103000000_half\.sql was not applied: .*nonsense"):
        stack.migrate(tmp_path)
    assert stack.sql("select from pg_tables where tablename = 'half'") == []


def test_migrations_run_as_a_role_that_is_no_superuser(stack: Stack) -> None:
    [table] = stack.sql("select tableowner from pg_tables where tablename = 'notes'")
    [owner] = stack.sql("select rolsuper from pg_roles where rolname = 'postgres'")
    assert (table["tableowner"], owner["rolsuper"]) == ("postgres", False)


async def test_a_stack_without_migrations_gets_them_later(folder: Path) -> None:
    with Stack.start(migrate=False, max_rows=1) as bare:
        client = await as_service(bare)
        with pytest.raises(APIError, match="does not exist"):
            await client.table("notes").select("*").execute()
        assert bare.migrate(folder) == ["20260101000000", "20260102000000"]
        assert (await client.table("notes").select("*").execute()).data == []
        cut_short = (await client.table("kinds").select("name").execute()).data
        assert cut_short == [{"name": "first"}], "max_rows is 1"


def test_reset_leaves_what_the_migrations_put_in(stack: Stack) -> None:
    stack.user_key(ANN)
    stack.sql("insert into notes (id, owner) values (1, %s)", ANN)
    stack.sql("update kinds set name = 'changed'")
    stack.gateway.fault("500")
    stack.reset()
    assert noted(stack) == [] and stack.sql("select * from auth.users") == []
    assert [row["name"] for row in stack.sql("select name from kinds order by id")] == ["first", "second"]
    assert insert(stack).status_code == 201
