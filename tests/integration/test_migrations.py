"""The migrations, on a new project and on one where an earlier system has left its table."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from scheduler.adapters.supabase.mirror import SCHEMA_VERSION, SupabaseMirror
from scheduler.core.model import JobId
from scheduler.errors import MirrorRefused
from scheduler.ports import JobQuery
from scheduler.testing import a_job
from scheduler.testing.attempts import admitted, run_lost
from tests.contract.suites.mirror_store import a_mirrored, committed
from tests.stack.migrations import FOLDER
from tests.stack.stack import Stack

EARLIER_SYSTEM = """
create type public.earlier_status as enum
    ('pending', 'queued', 'running', 'paused', 'completed', 'failed', 'cancelled',
     'canceled', 'error', 'done', 'success', 'succeeded', 'Uploading ');
create table public.training_jobs (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null,
    model_name text not null,
    name varchar(80),
    status public.earlier_status not null default 'pending',
    spec json,
    progress double precision check (progress between 0 and 100),
    reason text,
    version integer not null default 7,
    job text,
    created_at timestamp not null default now(),
    updated_at timestamptz,
    check (status <> 'failed' or reason is not null)
);
alter table public.training_jobs enable row level security;
create policy "everybody sees everything" on public.training_jobs for select using (true);
create policy "owners do everything" on public.training_jobs for all using (user_id = auth.uid());
create function public.set_updated_at() returns trigger language plpgsql as
    $$ begin new.updated_at := now(); return new; end $$;
create trigger set_updated_at before update on public.training_jobs
    for each row execute function public.set_updated_at();
"""
"""As such tables are: an enum, checks, columns of its own, generous policies, a trigger."""

CLEAN = """
drop schema if exists supabase_migrations cascade;
drop schema public cascade;
create schema public;
grant all on schema public to postgres;
grant usage on schema public to anon, authenticated, service_role;
"""

PUBLIC = "'public'::regnamespace"


@pytest.fixture(scope="module")
def bare_stack() -> Iterator[Stack]:
    with Stack.start(migrate=False) as stack:
        yield stack


@pytest.fixture
def project(bare_stack: Stack) -> Iterator[Stack]:
    """A project before its first migration.  Its owner is `postgres`, who is no superuser."""
    yield bare_stack
    bare_stack.sql(CLEAN)


def as_owner(project: Stack, statements: str) -> None:
    with psycopg.connect(project.dsn("postgres")) as connection:
        connection.execute(statements)  # pyright: ignore[reportCallIssue, reportArgumentType]


def migrate_again(project: Stack) -> None:
    for path in sorted(FOLDER.glob("*.sql")):
        as_owner(project, path.read_text())


def an_earlier_row(project: Stack, status: str, age_minutes: float, **columns: Any) -> JobId:
    likely = {"name": "job", "spec": "{}", "progress": 0.0, "created_at": "2020-02-02 02:02:02"}
    (found,) = project.sql(
        "insert into training_jobs (status, updated_at, user_id, model_name, reason, name, spec, progress, created_at)"
        " values (%s, now() - make_interval(secs => %s), %s, 'llama', 'it said so', %s, %s, %s, %s)"
        " returning id::text",
        status,
        60 * age_minutes,
        str(uuid4()),
        *(likely | columns).values(),
    )
    return JobId(found["id"])


def row_of(project: Stack, job_id: JobId) -> dict[str, Any]:
    return project.sql("select to_jsonb(t) as row from training_jobs t where id = %s", job_id)[0]["row"]


def everything(project: Stack) -> list[Any]:
    return [
        project.sql("select to_jsonb(t) as row from training_jobs t order by id"),
        project.sql("select to_jsonb(t) as row from training_job_events t order by job_id, version"),
        project.sql("select to_jsonb(t) as row from training_attempts t order by job_id, attempt"),
        project.sql(
            f"select proname, proacl::text, prosrc from pg_proc where pronamespace = {PUBLIC} order by 1"
        ),
        project.sql("select tablename from pg_publication_tables order by 1"),
        project.sql(
            f"select conname, pg_get_constraintdef(oid) from pg_constraint where connamespace = {PUBLIC} order by 1"
        ),
        project.sql("select * from pg_policies where schemaname = 'public' order by policyname"),
        project.sql(f"select relname, relacl::text from pg_class where relnamespace = {PUBLIC} order by 1"),
    ]


def test_migrations_applied_again_change_nothing(project: Stack) -> None:
    """A push that was cut off is repeated; a scheduler's rows and a front end's must survive it."""
    assert len(project.migrate()) == len(list(FOLDER.glob("*.sql")))
    assert project.migrate() == []
    project.sql("insert into training_jobs (name, spec) values ('mine', '{}')")
    project.sql("insert into training_jobs (status, version, incarnation) values ('running', 3, 1)")
    project.sql(
        "insert into training_attempts (job_id, attempt, cluster, version, nodes, started_at)"
        " values (gen_random_uuid(), 1, 'default', 3, '[]', now())"
    )
    before = everything(project)
    migrate_again(project)
    assert everything(project) == before


async def test_a_project_of_the_release_before_attempts_is_refused_until_it_is_migrated(
    project: Stack, tmp_path: Path
) -> None:
    """Its jobs and history stay; runs from then on have rows, and functions are open to nobody new."""
    for path in sorted(FOLDER.glob("*.sql")):
        if path.name < "20261122070000":
            shutil.copy(path, tmp_path)
    project.migrate(tmp_path)
    mirror = SupabaseMirror(project.url, project.service_key, "default")
    try:
        with pytest.raises(
            MirrorRefused, match=rf"schema version 1, .* needs {SCHEMA_VERSION}.*supabase db push"
        ):
            await mirror.check()
        await mirror.claim(1)
        start = admitted(a_job())
        await mirror.apply([committed(start)])
        (row,) = (await mirror.rows([start.job.id])).rows
        may_call = f"select proname, proacl::text from pg_proc where pronamespace = {PUBLIC} order by 1"
        before = project.sql(may_call)
        assert project.migrate()
        assert f"schema version {SCHEMA_VERSION}" in await mirror.check()
        after = project.sql(may_call)
        assert [one for one in after if one in before] == before
        new = [one for one in after if one not in before]
        assert [one["proname"] for one in new] == ["scheduler_prune", "training_jobs_unwrap_spec"]
        prune = new[0]["proacl"]
        assert "service_role" in prune
        assert not any(role in prune for role in ("anon", "authenticated", "{=X", ",=X"))
        assert (await mirror.rows([start.job.id])).rows == (row,)
        await mirror.apply([committed(run_lost(start.job))])
    finally:
        await mirror.close()
    events = project.sql("select version from training_job_events order by version")
    (attempt,) = project.sql("select attempt, ending, started_at < ended_at as ok from training_attempts")
    assert ([event["version"] for event in events], attempt) == (
        [2, 3],
        {"attempt": 1, "ending": "lost", "ok": True},
    )


def test_front_ends_may_listen_to_every_table_they_may_read(project: Stack) -> None:
    """Whoever sees a job move must not have to ask again and again for its attempts."""
    project.migrate()
    heard = project.sql(
        "select tablename as name from pg_publication_tables where pubname = 'supabase_realtime'"
    )
    readable = project.sql(
        "select distinct table_name as name from information_schema.role_table_grants"
        " where table_schema = 'public' and grantee = 'authenticated' and privilege_type = 'SELECT'"
    )
    assert {row["name"] for row in heard} == {row["name"] for row in readable} > {"training_attempts"}


LEFT_BEHIND = [
    # status, minutes since it was touched, what it becomes, and why
    ("running", 11, "failed", "stale"),
    ("pending", 11, "failed", "stale"),
    ("queued", 60 * 24 * 400, "failed", "stale"),
    ("running", 9, "running", None),
    ("pending", 9, "pending", None),
    ("queued", 9, "queued", None),
    ("paused", 60 * 24, "paused", None),
    ("completed", 60 * 24, "completed", None),
    ("failed", 60 * 24, "failed", None),
    ("cancelled", 60 * 24, "cancelled", None),
    ("canceled", 1, "cancelled", "earlier_status"),
    ("error", 1, "failed", "earlier_status"),
    ("done", 1, "completed", "earlier_status"),
    ("success", 1, "completed", "earlier_status"),
    ("succeeded", 1, "completed", "earlier_status"),
    ("Uploading ", 1, "failed", "earlier_status"),
]


def test_r9_rows_that_earlier_systems_left_are_cleaned(project: Stack) -> None:
    """R9: nothing claims to be alive that is not, no status is unknown, and every move is in the history."""
    as_owner(project, EARLIER_SYSTEM)
    ids = [an_earlier_row(project, status, minutes) for status, minutes, _, _ in LEFT_BEHIND]
    project.migrate()
    for job_id, (status, minutes, becomes, code) in zip(ids, LEFT_BEHIND, strict=True):
        row = row_of(project, job_id)
        events = project.sql("select * from training_job_events where job_id = %s", job_id)
        assert (row["status"], row["version"], row["earlier_reason"]) == (becomes, 0, "it said so"), status
        if code is None:
            assert (row["reason"], events) == (None, []), (status, minutes)
            continue
        was = status.strip().lower()
        assert (row["reason"]["code"], was in row["reason"]["message"]) == (code, True), row
        assert row["finished_at"] is not None
        (event,) = events
        told = (event["from_status"], event["to_status"], event["by"], event["reason"])
        assert told == (was, becomes, "migration", row["reason"])


def test_r9_a_second_clean_up_finds_nothing(project: Stack) -> None:
    """R9: a migration that is repeated must not take what front ends and schedulers wrote since."""
    as_owner(project, EARLIER_SYSTEM)
    for status in ("running", "pending", "done", "failed"):
        an_earlier_row(project, status, 60)
    project.migrate()
    before = everything(project)
    migrate_again(project)
    assert everything(project) == before


def test_r9_a_row_of_a_scheduler_is_left_to_schedulers(project: Stack) -> None:
    """R2: a job that waited for hours under a living scheduler is not stale, whatever its row looks like."""
    project.migrate()
    project.sql("alter table training_jobs disable trigger user")
    project.sql(
        "insert into training_jobs (status, version, updated_at) values ('queued', 1, now() - interval '1 day')"
    )
    before = everything(project)
    migrate_again(project)
    assert everything(project) == before


async def test_a_scheduler_lives_with_an_earlier_systems_table(project: Stack) -> None:
    """Its columns and rows stay; its rules, which would refuse our rows or show them to everybody, do not."""
    as_owner(project, EARLIER_SYSTEM)
    names = {"name": "mine", "spec": '{"loop": "sft"}', "progress": 40.0}
    pending = an_earlier_row(project, "pending", 1, **names)
    odd = an_earlier_row(project, "failed", 1, spec="[1, 2]")
    project.migrate()
    mirror = SupabaseMirror(project.url, project.service_key, "default")
    try:
        await mirror.claim(1)
        (row,) = (await mirror.inbox(None, 10)).rows
        assert (row.id, row.name, row.spec) == (pending, "mine", {"loop": "sft"})
        jobs = [a_job("failed"), a_job("paused"), a_job(id=pending)]
        await mirror.apply([a_mirrored(job) for job in jobs])
        shown = {row.id: row for row in await mirror.page(JobQuery())}
        assert set(shown) == {odd, *(job.id for job in jobs)}
        assert (shown[odd].spec, shown[odd].created_at.year) == ({"spec": [1, 2]}, 2020)
    finally:
        await mirror.close()
    kept = row_of(project, pending)
    assert (kept["model_name"], kept["earlier_progress"], kept["earlier_version"]) == ("llama", 40.0, 7)
    (trigger,) = project.sql("select tgenabled as is from pg_trigger where tgname = 'set_updated_at'")
    assert trigger["is"] == "O"
    policies = {row["policyname"] for row in project.sql("select policyname from pg_policies")}
    assert not policies & {"everybody sees everything", "owners do everything"}


def test_rows_without_any_time_are_as_old_as_can_be(project: Stack) -> None:
    """R9: a table that never knew when must not have its rows adopted as if they had come today."""
    as_owner(project, "create table training_jobs (id uuid, status text)")
    ids = [str(UUID(int=number)) for number in range(3)]
    for job_id, status in zip(ids, ("RUNNING", " Pending", None), strict=True):
        project.sql("insert into training_jobs values (%s, %s)", job_id, status)
    project.migrate()
    rows = [row_of(project, JobId(job_id)) for job_id in ids]
    assert [row["status"] for row in rows] == ["failed"] * 3
    assert [row["reason"]["code"] for row in rows] == ["stale", "stale", "earlier_status"]
    assert rows[0]["created_at"].startswith("1970")
    with pytest.raises(psycopg.errors.UniqueViolation):
        project.sql("insert into training_jobs (id) values (%s)", ids[0])


def test_ids_that_are_text_become_uuids(project: Stack) -> None:
    """Many tables keep them as text."""
    as_owner(project, "create table training_jobs (id text primary key, status text)")
    job_id = uuid4()
    project.sql("insert into training_jobs values (%s, 'done')", str(job_id).upper())
    project.migrate()
    assert row_of(project, JobId(str(job_id)))["status"] == "completed"


def test_a_table_whose_ids_cannot_be_uuids_is_refused_in_words(project: Stack) -> None:
    """R8: nothing is changed, and the owner is told what to do."""
    as_owner(project, "create table training_jobs (id bigint primary key, status text)")
    project.sql("insert into training_jobs values (1, 'running')")
    with pytest.raises(psycopg.Error, match="cannot become uuid") as refused:
        migrate_again(project)
    assert "Rename that table" in (refused.value.diag.message_hint or "")
    assert project.sql("select * from training_jobs") == [{"id": 1, "status": "running"}]
