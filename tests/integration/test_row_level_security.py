"""Each kind of key tries, over the real API, what it must not do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest

from scheduler.adapters.supabase.mirror import SupabaseMirror
from scheduler.core.model import JobId, Status
from scheduler.ports import Change
from scheduler.testing import a_change, a_job
from scheduler.testing.attempts import admitted
from tests.contract.suites.mirror_store import committed
from tests.stack.stack import Stack

JOBS, EVENTS, ATTEMPTS = "training_jobs", "training_job_events", "training_attempts"
INCARNATIONS = "scheduler_incarnations"
MAY_INSERT = {"id", "user_id", "name", "spec", "cluster", "status"}
MAY_UPDATE = {"requested_action"}
SOME_VALUE: dict[str, Any] = {
    "uuid": str(uuid4()),
    "jsonb": {},
    "text": "x",
    "integer": 1,
    "bigint": 1,
    "timestamp with time zone": "2026-01-01T00:00:00Z",
}


@dataclass
class Api:
    """The REST API as a browser sees it: the project's public key, and who is signed in."""

    http: httpx.Client
    user_id: str = ""

    def select(self, table: str, **filters: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.http.get(f"/{table}", params=filters).raise_for_status().json()
        return rows

    def insert(self, row: Any, *, table: str = JOBS, upsert: bool = False) -> httpx.Response:
        """Without an answer: one would need the right to read, and hide what the right to write allows."""
        prefer = "return=minimal" + (",resolution=merge-duplicates" if upsert else "")
        return self.http.post(f"/{table}", json=row, headers={"Prefer": prefer})

    def update(self, changes: Any, *, table: str = JOBS, **filters: str) -> httpx.Response:
        return self.http.patch(
            f"/{table}", json=changes, params=filters, headers={"Prefer": "return=minimal"}
        )

    def hand_in(self, row: Any) -> dict[str, Any]:
        """As front ends do, who want to see what became of it."""
        answer = self.http.post(f"/{JOBS}", json=row, headers={"Prefer": "return=representation"})
        (seen,) = answer.raise_for_status().json()
        return seen

    def delete(self, *, table: str = JOBS, **filters: str) -> httpx.Response:
        return self.http.delete(f"/{table}", params=filters)

    def call(self, function: str, **arguments: Any) -> httpx.Response:
        return self.http.post(f"/rpc/{function}", json=arguments)


@dataclass
class Project:
    stack: Stack
    ann: Api
    bob: Api
    anon: Api

    async def write(self, *changes: Change) -> None:
        mirror = SupabaseMirror(self.stack.url, self.stack.service_key, "default")
        await mirror.claim(1)
        await mirror.apply([committed(*changes)])
        await mirror.close()

    def everything(self) -> list[Any]:
        """Every row of every table."""
        return [
            self.stack.sql("select to_jsonb(t) as row from training_jobs t order by id"),
            self.stack.sql("select to_jsonb(t) as row from training_job_events t order by job_id, version"),
            self.stack.sql("select to_jsonb(t) as row from training_attempts t order by job_id, attempt"),
            self.stack.sql("select to_jsonb(t) as row from scheduler_incarnations t order by cluster"),
        ]


@pytest.fixture
def project(fresh_stack: Stack) -> Iterator[Project]:
    clients: list[httpx.Client] = []

    def api(token: str, user_id: str = "") -> Api:
        headers = {"apikey": fresh_stack.anon_key, "Authorization": f"Bearer {token}"}
        clients.append(httpx.Client(base_url=f"{fresh_stack.url}/rest/v1", headers=headers))
        return Api(clients[-1], user_id)

    users = [str(uuid4()) for _ in range(2)]
    ann, bob = (api(fresh_stack.user_key(user_id), user_id) for user_id in users)
    yield Project(fresh_stack, ann, bob, api(fresh_stack.anon_key))
    for client in clients:
        client.close()


@pytest.fixture
async def jobs(project: Project) -> tuple[JobId, JobId]:
    """A job of Ann's that a scheduler runs, and one of Bob's."""
    row = {"name": "mine", "spec": {"loop": "sft"}}
    ids = [JobId(who.hand_in(row)["id"]) for who in (project.ann, project.bob)]
    for job_id in ids:
        submitted = a_change(a_job(id=job_id))
        await project.write(submitted, admitted(submitted.job))
    return ids[0], ids[1]


# What users may do


async def test_a_front_end_needs_to_know_only_name_and_spec(project: Project) -> None:
    """P2, R4: the row is complete, and it is the user's."""
    row = project.ann.hand_in({"name": "mine", "spec": {"loop": "sft"}})
    told = [row[name] for name in ("user_id", "status", "version", "cluster", "requested_action", "job")]
    assert told == [project.ann.user_id, "pending", 0, "default", None, None]


async def test_users_see_their_own_jobs_and_history_only(project: Project, jobs: tuple[JobId, JobId]) -> None:
    """A user's key sees that user's jobs."""
    for who, job_id, other in ((project.ann, *jobs), (project.bob, *reversed(jobs))):
        assert [row["id"] for row in who.select(JOBS)] == [job_id]
        for table in (EVENTS, ATTEMPTS):
            assert {row["job_id"] for row in who.select(table)} == {job_id}
            assert who.select(table, job_id=f"eq.{other}") == []
        assert who.select(JOBS, id=f"eq.{other}") == []


@pytest.mark.parametrize("action", ["cancel", "pause", "resume", "restart", "preempt", "force_start", None])
async def test_users_may_ask_for_their_own_jobs(
    project: Project, jobs: tuple[JobId, JobId], action: str | None
) -> None:
    """P7: asking is theirs, and taking it back; doing is the scheduler's."""
    for wish in ("pause", action):
        project.ann.update({"requested_action": wish}, id=f"eq.{jobs[0]}").raise_for_status()
    (row,) = project.ann.select(JOBS)
    assert (row["requested_action"], row["status"], row["version"]) == (action, "running", 2)
    assert (row["requested_at"] is None) == (action is None)


# What they may not


async def test_users_write_no_column_of_the_schedulers(project: Project, jobs: tuple[JobId, JobId]) -> None:
    """A user's key can never write a state, nor what proves one."""
    columns = project.stack.sql(
        "select column_name as name, data_type as type from information_schema.columns"
        " where table_schema = 'public' and table_name = 'training_jobs'"
    )
    assert {column["name"] for column in columns} > MAY_INSERT | MAY_UPDATE | {"status", "job", "version"}
    before = project.everything()
    for column in columns:
        change = {column["name"]: SOME_VALUE[column["type"]]}
        if column["name"] not in MAY_INSERT:
            assert project.ann.insert({"name": "mine", **change}).status_code == 403, column
        if column["name"] not in MAY_UPDATE:
            assert project.ann.update(change, id=f"eq.{jobs[0]}").status_code == 403, column
    assert project.everything() == before


@pytest.mark.parametrize("status", [status.value for status in Status if status != "pending"] + ["done", ""])
async def test_users_hand_in_pending_jobs_only(project: Project, status: str) -> None:
    """A front end that says `running` would be believed by every reader until the reconciler comes."""
    assert project.ann.insert({"name": "mine", "status": status}).status_code in (400, 403)
    assert project.stack.sql("select id from training_jobs") == []


async def test_users_hand_in_nothing_for_others(project: Project) -> None:
    """Bob would see, and pay for, what he never asked for."""
    assert project.ann.insert({"name": "mine", "user_id": project.bob.user_id}).status_code == 403
    assert project.ann.insert({"name": "mine", "user_id": None}).status_code == 403


@pytest.mark.parametrize(
    "row",
    [
        {"spec": {"text": "x" * 1_000_001}},
        {"name": "x" * 201},
        {"cluster": "x" * 41},
        {"spec": [1]},
        {"spec": "loop"},
        {"name": None},
    ],
    ids=["huge spec", "long name", "long cluster", "a list", "a word", "no name"],
)
async def test_users_hand_in_nothing_that_would_choke_a_reader(project: Project, row: dict[str, Any]) -> None:
    """The scheduler reads these rows into its memory, and every front end shows them."""
    assert project.ann.insert(row).status_code in (400, 403)
    assert project.stack.sql("select id from training_jobs") == []


async def test_an_id_that_is_taken_is_not_taken_over(project: Project, jobs: tuple[JobId, JobId]) -> None:
    """Ids are no secret; an insert with Bob's must not become an update of his row, nor of one's own."""
    before = project.everything()
    for job_id in jobs:
        row = {"id": job_id, "name": "taken", "spec": {}}
        assert project.ann.insert(row).status_code == 409
        assert project.ann.insert(row, upsert=True).status_code == 403
        assert (
            project.ann.insert({"id": job_id, "requested_action": "cancel"}, upsert=True).status_code == 403
        )
    assert project.everything() == before


async def test_users_ask_nothing_of_the_jobs_of_others(project: Project, jobs: tuple[JobId, JobId]) -> None:
    """One user must not stop the runs of another, neither one nor, by an update without a filter, all."""
    project.ann.update({"requested_action": "cancel"}, id=f"eq.{jobs[1]}")
    assert project.stack.sql("select id from training_jobs where requested_action is not null") == []
    project.ann.update({"requested_action": "cancel"}).raise_for_status()
    (asked,) = project.stack.sql("select id::text from training_jobs where requested_action is not null")
    assert asked["id"] == jobs[0]
    assert project.ann.update({"requested_action": "explode"}, id=f"eq.{jobs[0]}").status_code == 400


async def test_users_delete_nothing(project: Project, jobs: tuple[JobId, JobId]) -> None:
    """A row that is gone while its run goes on is a job that nobody can stop."""
    before = project.everything()
    assert project.ann.delete(id=f"eq.{jobs[0]}").status_code == 403
    for table in (EVENTS, ATTEMPTS):
        assert project.ann.delete(table=table, job_id=f"eq.{jobs[0]}").status_code == 403
    assert project.everything() == before


async def test_users_write_no_history(project: Project, jobs: tuple[JobId, JobId]) -> None:
    """History that its subject can write is none."""
    before = project.everything()
    event = {"job_id": jobs[0], "version": 9, "kind": "x", "at": "now", "by": "ann", "to_status": "completed"}
    assert project.ann.insert({**event, "cluster": "default"}, table=EVENTS).status_code == 403
    assert project.ann.update({"by": "bob"}, table=EVENTS, job_id=f"eq.{jobs[0]}").status_code == 403
    run = {"job_id": jobs[0], "attempt": 2, "version": 9, "nodes": [], "started_at": "now"}
    assert project.ann.insert({**run, "cluster": "default"}, table=ATTEMPTS).status_code == 403
    assert project.ann.update({"evidence": {}}, table=ATTEMPTS, job_id=f"eq.{jobs[0]}").status_code == 403
    assert project.everything() == before


@pytest.mark.parametrize("who", ["ann", "anon"])
async def test_the_schedulers_own_things_are_closed(
    project: Project, jobs: tuple[JobId, JobId], who: str
) -> None:
    """Whoever may claim a cluster stops its scheduler; whoever may apply writes any state."""
    api: Api = getattr(project, who)
    before = project.everything()
    assert api.http.get(f"/{INCARNATIONS}").status_code in (401, 403)
    assert api.insert({"cluster": "default", "incarnation": 9}, table=INCARNATIONS).status_code in (401, 403)
    assert api.update({"incarnation": 0}, table=INCARNATIONS, cluster="eq.default").status_code in (401, 403)
    assert api.delete(table=INCARNATIONS, cluster="eq.default").status_code in (401, 403)
    functions = project.stack.sql(
        "select proname as name, proargnames as arguments from pg_proc"
        " where pronamespace = 'public'::regnamespace and prorettype <> 'trigger'::regtype"
    )
    assert len(functions) >= 10
    assert (
        project.stack.sql(
            "select proname, role from pg_proc, unnest(array['anon', 'authenticated']) as role"
            " where pronamespace = 'public'::regnamespace and has_function_privilege(role, pg_proc.oid, 'execute')"
        )
        == []
    )
    for function in functions:
        arguments = dict.fromkeys(function["arguments"] or ())
        refused = api.call(function["name"], **arguments)
        assert (refused.status_code, refused.json()["code"]) in ((401, "42501"), (403, "42501")), refused.text
    assert project.everything() == before


async def test_who_is_not_signed_in_sees_and_does_nothing(
    project: Project, jobs: tuple[JobId, JobId]
) -> None:
    """The public key is in every browser."""
    before = project.everything()
    assert project.anon.http.get(f"/{JOBS}").status_code == 401
    assert project.anon.http.get(f"/{EVENTS}").status_code == 401
    assert project.anon.http.get(f"/{ATTEMPTS}").status_code == 401
    assert project.anon.insert({"name": "mine"}).status_code == 401
    assert project.anon.update({"requested_action": "cancel"}, id=f"eq.{jobs[0]}").status_code == 401
    assert project.anon.delete(id=f"eq.{jobs[0]}").status_code == 401
    assert project.everything() == before


async def test_every_table_is_guarded_row_by_row(project: Project) -> None:
    """A grant that somebody adds later must not open everything at once."""
    open_tables = project.stack.sql(
        "select relname from pg_class where relnamespace = 'public'::regnamespace"
        " and relkind in ('r', 'p', 'v', 'm', 'f') and not relrowsecurity"
    )
    assert open_tables == []
