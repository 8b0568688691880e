"""What went wrong before, played against the real thing: Ray, the actor, the API, PostgreSQL and PostgREST.

One job holds every CPU from the first test to the last but one: it proves that nothing of this touches a run.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.conftest import Cluster, wait_until
from tests.stack.stack import Stack

pytestmark = pytest.mark.ray
QUICK = {"loop": "tests.loops:quick", "config": {"steps": 1}}
ANN = str(uuid.uuid4())


class Database:
    """The tables as a person sees them, and the API as a front end does."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def row(self, job_id: str) -> dict[str, Any]:
        rows = self.stack.sql("select * from training_jobs where id = %s", job_id)
        return rows[0] if rows else {}

    def status(self, job_id: str) -> str | None:
        return self.row(job_id).get("status")

    def by_hand(self, status: str, age_s: float = 0.0, spec: Any = None) -> str:
        """A row that no scheduler has written; returns its id."""
        job_id = str(uuid.uuid4())
        self.stack.sql(
            "insert into training_jobs (id, name, status, spec, cluster, created_at, updated_at)"
            " values (%s, 'by hand', %s, %s::jsonb, 'tests', now() - %s * interval '1 s', now() - %s * interval '1 s')",
            job_id,
            status,
            httpx.Request("POST", "http://x", json=spec or QUICK).content.decode(),
            age_s,
            age_s,
        )
        return job_id

    def insert(self, spec: Any, name: str = "from the front end") -> str:
        """What a front end does with the key of a user."""
        body = {"name": name, "spec": spec, "cluster": "tests"}
        return self._as_ann("POST", "", body)[0]["id"]

    def request(self, job_id: str, action: str) -> None:
        self._as_ann("PATCH", f"?id=eq.{job_id}", {"requested_action": action})

    def _as_ann(self, method: str, query: str, body: Any) -> Any:
        key = self.stack.user_key(ANN)
        headers = {
            "apikey": self.stack.anon_key,
            "Authorization": f"Bearer {key}",
            "Prefer": "return=representation",
        }
        url = f"{self.stack.url}/rest/v1/training_jobs{query}"
        return httpx.request(method, url, json=body, headers=headers).raise_for_status().json()

    def events(self, job_id: str) -> list[tuple[int, str]]:
        rows = self.stack.sql(
            "select version, kind from training_job_events where job_id = %s order by version", job_id
        )
        return [(row["version"], row["kind"]) for row in rows]


@pytest.fixture(scope="module")
def database(cluster_stack: Stack) -> Database:
    return Database(cluster_stack)


@pytest.fixture(scope="module", autouse=True)
def blocker(cluster: Cluster) -> Iterator[str]:
    """Holds every CPU; its processes are the same at the end."""
    config = {"steps": 100_000, "step_time_s": 0.1, "checkpoint_every_steps": 100_000}
    job_id = cluster.submit("quick", config, resources={"num_ranks": 4}, name="blocker")
    cluster.wait_for_step(job_id, 1)
    yield job_id
    cluster.client.cancel(job_id)


@pytest.fixture(autouse=True)
def afterwards(cluster: Cluster, cluster_stack: Stack, blocker: str) -> Iterator[None]:
    """R1: whatever a test did, the run that was alive goes on, and everybody is well again."""
    pids = cluster.rank_pids(blocker)
    yield
    cluster_stack.gateway.clear()
    wait_until(lambda: health(cluster).get("status") == "healthy", within_s=30, what=f"{health(cluster)}")
    job = cluster.status(blocker)
    if job.status == "running":
        assert (job.attempt, cluster.rank_pids(blocker)) == (1, pids)
        assert all(psutil.pid_exists(pid) for pid in pids)


def health(cluster: Cluster) -> dict[str, Any]:
    return httpx.get(f"{cluster.info.api_url}/health", timeout=30).json()


def api(cluster: Cluster, method: str, path: str, **params: Any) -> Any:
    url = f"{cluster.info.api_url}/api/training{path}"
    return httpx.request(method, url, params=params, timeout=60).raise_for_status().json()


@contextmanager
def scheduler_killed(cluster: Cluster) -> Iterator[None]:
    """SIGKILL; what is done inside happens before the next life reads anything.  Returns when that one serves."""
    registry = wait_until(lambda: cluster.registry() or None, within_s=30, what="the registry answers")
    os.kill(registry["pid"], signal.SIGKILL)
    yield
    wait_until(
        lambda: cluster.registry().get("incarnation", 0) > registry["incarnation"],
        within_s=40,
        what="the scheduler is back",
    )


def repair_of(cluster: Cluster, job_id: str) -> dict[str, Any] | None:
    found = [one for one in api(cluster, "GET", "/repairs", limit=200)["repairs"] if one["job_id"] == job_id]
    return found[0] if found else None


@pytest.mark.parametrize("status", ["running", "queued", "pending"])
def test_p1_p4_r3_an_old_row_that_nobody_knows_is_failed_while_the_server_is_up(
    cluster: Cluster, database: Database, status: str
) -> None:
    """P1, P4, R3: clean-up is not a matter of start-up."""
    job_id = database.by_hand(status, age_s=60)
    wait_until(lambda: database.status(job_id) == "failed", within_s=15, what=str(database.row(job_id)))
    row = database.row(job_id)
    assert row["reason"]["code"] == "stale"
    assert "heartbeat" in row["reason"]["message"]
    assert cluster.status(job_id).status == "failed"
    assert database.events(job_id)[-1][1] == "GiveUp"
    seen = repair_of(cluster, job_id)
    assert seen is not None
    assert seen["in_database"] == f"{status}, version 0"
    assert "no run of it is alive" in seen["in_reality"]


def test_p1_a_row_set_to_running_by_hand_is_shown_as_stale_and_put_right(
    cluster: Cluster, database: Database
) -> None:
    """P1, L6: a job that was cancelled cannot look as if it ran."""
    job_id = cluster.submit("quick")
    cluster.client.cancel(job_id)
    wait_until(lambda: database.status(job_id) == "cancelled", within_s=10, what="the cancel is mirrored")
    with scheduler_stopped_reconciling(cluster, database):
        database.stack.sql("update training_jobs set status = 'running' where id = %s", job_id)
        listed = {job["job_id"]: job for job in api(cluster, "GET", "/jobs", limit=20)["jobs"]}[job_id]
        assert (listed["status"], listed["stale"]) == ("cancelled", True)
        assert (listed["database_status"], listed["registry_status"]) == ("running", "cancelled")
    wait_until(lambda: database.status(job_id) == "cancelled", within_s=15, what="it is put right")
    seen = repair_of(cluster, job_id)
    assert seen is not None
    assert (seen["in_database"][:7], seen["in_reality"][:9]) == ("running", "cancelled")


@contextmanager
def scheduler_stopped_reconciling(cluster: Cluster, database: Database) -> Iterator[None]:
    """The database answers everything but the question for active rows."""
    database.stack.gateway.fault("500", path="active")
    yield
    database.stack.gateway.clear()


def test_p1_a_deleted_row_comes_back(cluster: Cluster, database: Database, blocker: str) -> None:
    """The database cannot forget a job that runs."""
    before = database.events(blocker)
    database.stack.sql("delete from training_job_events where job_id = %s", blocker)
    database.stack.sql("delete from training_jobs where id = %s", blocker)
    wait_until(lambda: database.status(blocker) == "running", within_s=15, what="the row is there again")
    assert database.events(blocker) == before


def test_p2_r4_a_front_ends_row_is_adopted_and_obeys_its_requests(
    cluster: Cluster, database: Database
) -> None:
    """P2, R4: within seconds it waits in the line, and says why; a request is taken and set back to null."""
    job_id = database.insert(QUICK)
    job = wait_until(lambda: known(cluster, job_id), within_s=5, what="the row is adopted")
    assert (job["status"], job["spec"]["user"]) == ("queued", ANN)
    wait_until(lambda: database.status(job_id) == "queued", within_s=5, what="the row says so")
    wait_until(lambda: database.row(job_id)["queue_position"], within_s=5, what="with its place in the queue")
    assert request(database, job_id, "pause")["request_error"] is None
    wait_until(
        lambda: (database.row(job_id)["reason"] or {}).get("code") == "held",
        within_s=5,
        what="it is held in the line",
    )
    request(database, job_id, "cancel")
    wait_until(lambda: database.status(job_id) == "cancelled", within_s=5, what="the request is obeyed")
    refused = request(database, job_id, "pause")
    assert "cannot pause" in refused["request_error"], "what is over cannot be paused"
    assert [kind for _, kind in database.events(job_id)] == ["Adopt", "AskStop", "AskStop"]


def request(database: Database, job_id: str, action: str) -> dict[str, Any]:
    """The row once the request is taken or refused."""
    database.request(job_id, action)
    return wait_until(
        lambda: (row := database.row(job_id))["requested_action"] is None and row,
        within_s=5,
        what=f"{action} is taken",
    )


def known(cluster: Cluster, job_id: str) -> Any:
    found = httpx.get(f"{cluster.info.api_url}/api/training/status/{job_id}", timeout=30).json()
    return found if found.get("version") else None


@pytest.mark.parametrize(
    "spec, words",
    [
        ({"loop": "sfd"}, "did you mean 'sft'?"),
        ({"loop": "tests.loops:quick", "gpu": 1}, "spec.gpu"),
        ({"lop": "sft"}, "spec.loop"),
        ({"loop": "tests.loops:quick", "resources": {"num_ranks": 1000}}, "resources"),
    ],
)
def test_r4_an_invalid_row_fails_with_the_reason_in_words(
    cluster: Cluster, database: Database, spec: Any, words: str
) -> None:
    """R4: it is validated like any submit, and its spec stays as it was written."""
    job_id = database.insert(spec)
    wait_until(lambda: database.status(job_id) == "failed", within_s=5, what=str(database.row(job_id)))
    row = database.row(job_id)
    assert row["reason"]["code"] == "invalid_spec"
    assert words in row["reason"]["message"]
    assert {key: row["spec"][key] for key in spec}.keys() == spec.keys(), "what was written is kept"
    refused = httpx.post(f"{cluster.info.api_url}/api/training/{job_id}/force-start", timeout=30)
    assert refused.status_code == 400, "L4: the stored spec is invalid"


def test_l4_a_job_that_is_only_a_row_is_found_and_force_started(cluster: Cluster, database: Database) -> None:
    """L4: nothing adopts a failed row of an earlier system; a person may."""
    job_id = database.by_hand("failed", age_s=1000)
    assert cluster.status(job_id).status == "failed"
    answer = api(cluster, "POST", f"/{job_id}/force-start")
    assert (answer["previous_status"], answer["new_status"]) == ("failed", "queued")
    assert answer["queue_position"] >= 1
    assert cluster.client.cancel(job_id).status == "cancelled"
    unknown = httpx.post(f"{cluster.info.api_url}/api/training/{uuid.uuid4()}/force-start", timeout=30)
    assert unknown.status_code == 404


def test_p3_r2_rows_that_wait_are_found_at_start_up(cluster: Cluster, database: Database) -> None:
    """P3, R2: the journal's line as it was, young rows behind it, old ones failed as stale."""
    ours = [cluster.submit("quick", name=f"ours {n}") for n in range(2)]
    with scheduler_killed(cluster):
        young = database.by_hand("queued", age_s=-30)  # young also when the scheduler is up again late
        old = {status: database.by_hand(status, age_s=60) for status in ("queued", "pending", "running")}
    line = [*ours, young]
    wait_until(lambda: known(cluster, young), within_s=10, what="the young row is in the line")
    assert [cluster.status(job_id).queue_position for job_id in line] == [1, 2, 3]
    for job_id in old.values():
        wait_until(lambda job_id=job_id: database.status(job_id) == "failed", within_s=10, what="stale")
        assert database.row(job_id)["reason"]["code"] == "stale"
    for job_id in line:
        cluster.client.cancel(job_id)


def test_r2_hours_in_the_line_under_a_living_scheduler_are_no_age(
    cluster: Cluster, database: Database
) -> None:
    """R2: the row was not touched for longer than the limit, and still waits after the restart."""
    job_id = cluster.submit("quick")
    wait_until(lambda: database.status(job_id) == "queued", within_s=10, what="it is mirrored")
    database.stack.sql(
        "alter table training_jobs disable trigger user;"
        "update training_jobs set updated_at = now() - interval '3 hours';"
        "alter table training_jobs enable trigger user"
    )
    with scheduler_killed(cluster):
        pass
    api(cluster, "POST", "/reconcile")
    assert cluster.status(job_id).status == "queued"
    cluster.client.cancel(job_id)


def test_p5_r6_what_the_database_missed_arrives_after_the_outage_and_a_crash(
    cluster: Cluster, database: Database
) -> None:
    """P5, R6: refused writes are kept, also by the next life; `/health` says so meanwhile."""
    database.stack.gateway.fault("refuse", path="apply")
    job_id = cluster.submit("quick")
    cluster.client.cancel(job_id)
    told = wait_until(
        lambda: (seen := health(cluster))["status"] == "degraded" and seen, within_s=10, what="degraded"
    )
    assert any("relay" in words for words in told["problems"])
    assert told["unmirrored_writes"] >= 2
    with scheduler_killed(cluster):
        pass
    assert database.status(job_id) is None
    assert cluster.status(job_id).status == "cancelled"
    database.stack.gateway.clear()
    wait_until(lambda: database.status(job_id) == "cancelled", within_s=15, what="it is mirrored")
    assert [kind for _, kind in database.events(job_id)] == ["Submitted", "AskStop"]
    wait_until(lambda: health(cluster)["unmirrored_writes"] == 0, within_s=10, what="nothing waits")


def test_r3_a_failing_pass_is_counted_and_shown_and_the_next_one_runs(
    cluster: Cluster, database: Database
) -> None:
    """R3: clean-up that fails in silence was the old system's way."""
    before = health(cluster)["loops"]["reconcile"]["errors"]
    database.stack.gateway.fault("500", path="active")
    told = wait_until(
        lambda: (seen := health(cluster))["loops"]["reconcile"]["errors"] >= before + 2 and seen,
        within_s=15,
        what="failing passes are counted",
    )
    assert told["status"] == "degraded"
    assert any("reconcile loop fails" in words for words in told["problems"])
    job_id = database.by_hand("running", age_s=60)
    database.stack.gateway.clear()
    wait_until(lambda: database.status(job_id) == "failed", within_s=15, what="the next pass runs")


def test_r7_l10_a_second_pass_finds_nothing_to_do(cluster: Cluster, database: Database) -> None:
    """R7, L10: a dry run says what it would do and does nothing; the pass does it; the next one is empty."""
    database.stack.gateway.fault("500", path="active", times=1)  # the periodic pass rests for a moment
    degraded = lambda: health(cluster)["status"] == "degraded"  # noqa: E731  for a moment only
    wait_until(degraded, within_s=10, what="the periodic pass failed", pause_at_most_s=0.02)
    job_id = database.by_hand("running", age_s=60)
    would = api(cluster, "POST", "/reconcile", dry_run=True)
    did = api(cluster, "POST", "/reconcile")
    again = api(cluster, "POST", "/reconcile")
    decided = {one["job_id"]: one["decided"] for one in [*would["repairs"], *did["repairs"]]}
    assert "stale" in decided.get(job_id, "") or "stale" in (repair_of(cluster, job_id) or {})["decided"]
    assert again["repairs"] == []
    wait_until(lambda: database.status(job_id) == "failed", within_s=10, what="it is done")


def test_the_list_is_served_while_the_registry_is_silent(cluster: Cluster, database: Database) -> None:
    """L6, R8: within its budget, as the database has it, and saying so; also a single job."""
    job_id = cluster.submit("quick")
    wait_until(lambda: database.status(job_id) == "queued", within_s=10, what="it is mirrored")
    pid = cluster.registry()["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        page = api(cluster, "GET", "/jobs", limit=5)
        status = api(cluster, "GET", f"/status/{job_id}")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert page["verified"] is False
    assert "not verified" in page["note"]
    assert job_id in [job["job_id"] for job in page["jobs"]]
    assert (status["status"], status["verified"]) == ("queued", False)
    cluster.client.cancel(job_id)


def test_a_lost_journal_is_rebuilt_from_the_database_and_the_live_runs(
    cluster: Cluster, database: Database, blocker: str, tmp_path: Path
) -> None:
    """Two jobs run and three wait: the runs go on in the same processes, the three start in their order."""
    cluster.client.cancel(blocker)
    cluster.wait_for(blocker, "cancelled")
    two = {"cpus_per_rank": 2}
    config = {"until": str(tmp_path / "looked")}
    running = [cluster.submit("until", config, resources=two, name=f"running {n}") for n in range(2)]
    for job_id in running:
        cluster.wait_for_step(job_id, 1)
    waiting = [cluster.submit("quick", {"steps": 1}, resources=two, name=f"waiting {n}") for n in range(3)]
    wait_until(lambda: database.status(waiting[-1]) == "queued", within_s=10, what="all of it is mirrored")
    pids = [cluster.rank_pids(job_id) for job_id in running]

    with scheduler_killed(cluster):
        for file in cluster.settings.state_dir.glob("journal.db*"):
            file.unlink()

    assert [cluster.rank_pids(job_id) for job_id in running] == pids, "the same processes"
    assert [cluster.status(job_id).status for job_id in running] == ["running"] * 2
    assert [cluster.status(job_id).queue_position for job_id in waiting] == [1, 2, 3]
    (tmp_path / "looked").touch()
    ends = [cluster.wait_for(job_id, "completed", "failed", within_s=150) for job_id in [*running, *waiting]]
    assert [(job.status, job.attempt) for job in ends] == [("completed", 1)] * 5, [job.reason for job in ends]
    assert [job.started_at for job in ends[2:]] == sorted(job.started_at for job in ends[2:])
    for job_id in [*running, *waiting]:
        wait_until(lambda job_id=job_id: database.status(job_id) == "completed", within_s=10, what="mirrored")
        assert "Recover" in [kind for _, kind in database.events(job_id)]
