"""A policy tried on one's own past: a journal becomes a trace, whether or not a scheduler is at work on it (S12)."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from command_line import run

from scheduler.adapters.journal import SqliteJournal
from scheduler.adapters.journal.history import AT_ONCE, JournalHistory
from scheduler.cli.trace_file import as_words, outline, read_trace
from scheduler.core.contender import Share
from scheduler.core.history import Hold, LeftOut, PastJob, history, seen_nodes
from scheduler.core.model import Allocation, Attempt, Ending, Fence, Job, NodeId, Status
from scheduler.core.spec import After
from scheduler.errors import JournalUnusable
from scheduler.ports import Change
from scheduler.testing import a_change, a_job, a_spec

NOW = datetime.now(UTC)
BEGAN = NOW - timedelta(hours=3)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def past(
    submitted_s: float,
    *runs: tuple[float, float | None],
    status: Status = Status.COMPLETED,
    node: str = "n1",
    gpus: int = 2,
    **spec: Any,
) -> Change:
    """A job that was submitted then and ran from then to then, with a rank for each GPU."""
    allocation = Allocation(ranks=((NodeId(node), gpus),))
    attempts = tuple(
        Attempt(
            fence=Fence(number),
            allocation=allocation,
            started_at=at(began_s),
            ended_at=None if ended_s is None else at(ended_s),
            ending=None if ended_s is None else Ending.COMPLETED,
        )
        for number, (began_s, ended_s) in enumerate(runs, 1)
    )
    ends = [ended_s for _, ended_s in runs if ended_s is not None]
    job = a_job(
        status,
        spec=a_spec(ranks=gpus, gpus=1.0, **spec),
        created_at=at(submitted_s),
        fence=Fence(len(runs)),
        **({"finished_at": at(max(ends, default=submitted_s))} if status.is_terminal else {}),
    )
    return replace(a_change(job), attempts=attempts)


THREE_DAYS = [
    past(-3600, (-3600, -3000), node="before-a-restart", project="old"),
    past(0, (0, 600), project="vision", user="ann"),
    past(10, (600, 1200), (1300, 1900), project="speech", user="bob", priority=3),
    past(20, status=Status.CANCELLED),
    past(30, status=Status.QUEUED),
    past(40, (50, None), status=Status.RUNNING, node="n2", gpus=1),
    past(41, (42, 48), status=Status.QUEUED, node="n2", gpus=1),
]
"""Three that ran and ended, two that never ran, two that have not ended."""


@pytest.fixture
async def journal(tmp_path: Path) -> Path:
    return await written(tmp_path / "journal.db", THREE_DAYS)


async def written(path: Path, changes: list[Change]) -> Path:
    opened = await SqliteJournal.open(path)
    await opened.commit(changes)
    await opened.close()
    return path


def jobs_of(path: Path) -> list[Job]:
    with JournalHistory.of(path) as opened:
        return [one.job for one in opened.jobs(at(-1e6), NOW)]


def test_the_past_is_played_under_the_policy_of_today_and_a_new_one(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: 600 s; 600 s; and 1200 s of two runs from 600 s on, submitted at 10 s: done after 1790 s."""
    monkeypatch.setenv("SCHEDULER_POLICY", "fifo")
    said = run(
        "policy", "try", "--history", "1d", "--journal", str(journal), "--set", "preempt=never", "--json"
    ).document
    for one in (said["today"], said["new"]):
        assert one["jobs"] == 3
        assert one["avg_jct_s"] == pytest.approx((600 + 600 + 1790) / 3)
        assert one["longest_wait_s"] == pytest.approx(590)
        assert {name: each["gpu_s"] for name, each in one["projects"].items()} == pytest.approx(
            {"old": 1200, "vision": 1200, "speech": 2400}
        )
    first, nodes, today = said["notes"]
    assert first == "3 jobs of the last 1d; 4 left out: 2 never ran, 2 have not ended"
    assert nodes.startswith(
        "nodes 1x2,1x1: the most that had runs in the same stretch of time, of 3 seen in all"
    )
    assert today.startswith("today is fifo")


def test_the_rules_of_today_are_those_of_the_settings(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the journal is the one that they name."""
    monkeypatch.setenv("SCHEDULER_POLICY_RULES", "preempt=never")
    monkeypatch.setenv("SCHEDULER_STATE_DIR", str(journal.parent))
    said = run("policy", "try", "--history", "1d", "--nodes", "1x2", "--json").document
    assert (said["today"]["preemptions"], len(said["notes"])) == (0, 2)
    assert said["notes"][-1] == "today is fair, with preempt=never, by the settings of this environment"


async def test_what_projects_may_have_is_taken_from_the_journal(tmp_path: Path) -> None:
    """A limit of 1 GPU lets two jobs of 1 GPU run one after the other only, until another is given."""
    path = await written(
        tmp_path / "journal.db",
        [past(0, (0, 600), gpus=1, project="p"), past(0, (0, 600), gpus=1, project="p")],
    )
    opened = await SqliteJournal.open(path)
    await opened.set_project("p", Share(limit=1.0))
    await opened.close()
    args = ("policy", "try", "--history", "1d", "--journal", str(path), "--json", "--set", "preempt=never")
    assert run(*args).document["new"]["avg_jct_s"] == pytest.approx(900)
    assert run(*args, "--share", "p:limit=2").document["new"]["avg_jct_s"] == pytest.approx(600)


def test_a_job_that_may_not_be_preempted_is_not(journal: Path) -> None:
    with JournalHistory.of(journal) as opened:
        (plain, *_) = history(opened.jobs(at(-1e6), NOW), at(0), NOW).entries
    assert plain.preemptible
    change = past(0, (0, 60), preemptible=False)
    assert not history([_as_past(change)], at(0), NOW).entries[0].preemptible


def test_where_none_could_ever_start_that_is_said(tmp_path: Path) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text("submit_s,duration_s,num_gpus,preemptible\n0,60,1,false\n")
    ran = run("policy", "try", "--trace", str(trace), "--nodes", "1x1")
    assert (ran.code, "none of the jobs could ever start" in " ".join(ran.err.split())) == (2, True)
    ran = run("policy", "try", "--trace", str(trace), "--nodes", "1x1", "--share", ":quota=1", "--json")
    assert ran.document["new"]["jobs"] == 1


def _as_past(change: Change) -> PastJob:
    return PastJob(job=change.job, attempts=change.attempts)


def test_a_job_counts_from_when_it_could_start() -> None:
    """Not before its moment, nor before the job for which it waits had ended."""
    parent = past(0, (0, 600))
    child = past(5, (700, 800), after=[After(job=parent.job.id)])
    later = past(5, (1000, 1100), start_after=at(900))
    found = history([_as_past(one) for one in (parent, child, later)], at(0), NOW)
    assert [one.submit_s for one in found.entries] == [0, 600, 900]


def test_a_run_of_which_nothing_is_known_is_no_job_that_never_ran() -> None:
    """It was taken in after the journal was lost."""
    change = past(0, (0, 600))
    found = history([_as_past(replace(change, attempts=()))], at(0), NOW)
    assert (found.entries, found.left_out) == ((), {LeftOut.UNKNOWN: 1})


def hold(node: str, from_s: float, to_s: float, gpus: float = 0.0, cpus: float = 1.0) -> Hold:
    return Hold(node=NodeId(node), from_s=from_s, to_s=to_s, gpus=gpus, cpus=cpus)


def test_nodes_are_those_that_were_there_at_one_time_as_large_as_what_they_held() -> None:
    holds = [
        hold("a", 0, 10, gpus=4), hold("a", 5, 10, gpus=4), hold("a", 10, 20, gpus=8),
        hold("b", 8, 30, gpus=0.5), hold("b", 9, 30, gpus=0.5),
        hold("a-again", 21, 40, gpus=8), hold("c", 8, 9, cpus=3.5),
    ]  # fmt: skip
    seen = seen_nodes(holds)
    assert (as_words(seen.largest), seen.num_seen) == ("1x8,1x1,1x4cpus", 4)
    cluster = outline(as_words(seen.largest))
    assert [(node.gpus, node.cpus) for node in cluster.nodes] == [(8, 512), (1, 64), (0, 4)]


async def test_a_cluster_without_gpus_is_played_by_its_cpus(tmp_path: Path) -> None:
    change = past(0, (0, 600), gpus=2)
    on_cpus = replace(change, job=replace(change.job, spec=a_spec(ranks=2)))
    path = await written(tmp_path / "journal.db", [on_cpus])
    said = run("policy", "try", "--history", "1d", "--journal", str(path), "--json").document
    assert said["new"]["avg_jct_s"] == pytest.approx(600)
    assert "nodes 1x2cpus:" in said["notes"][1]


def test_what_other_nodes_could_not_hold_is_left_out_and_counted(journal: Path) -> None:
    ran = run("policy", "try", "--history", "1d", "--journal", str(journal), "--nodes", "4x1", "--json")
    assert ran.document["new"]["jobs"] == 3  # ranks of one GPU each fit on four nodes
    ran = run("policy", "try", "--history", "1d", "--journal", str(journal), "--nodes", "1x1")
    assert ran.code == 2
    assert "3 are more than these nodes could hold" in " ".join(ran.err.split())


def test_kinds_count_only_where_the_nodes_have_some() -> None:
    """The journal knows no labels: a job that asked for a kind would fit on none of the nodes that were seen."""
    change = past(0, (0, 600))
    gang = replace(change.job.spec.resources, on={"gpu": "H100"})
    asked = replace(change, job=replace(change.job, spec=replace(change.job.spec, resources=gang)))
    found = history([_as_past(asked)], at(0), NOW)
    assert len(found.on(outline("1x8")).entries) == len(found.on(outline("1x8:H100")).entries) == 1
    assert found.on(outline("1x8:A100")).left_out == {LeftOut.TOO_LARGE: 1}


def test_the_trace_that_is_exported_is_the_same_past(journal: Path, tmp_path: Path) -> None:
    ran = run("policy", "export", "--history", "1d", "--journal", str(journal))
    assert ran.err.startswith("3 jobs of the last 1d; 4 left out")
    trace = tmp_path / "trace.csv"
    trace.write_text(ran.out)
    entries = list(read_trace(str(trace)))
    assert [round(one.duration_s) for one in entries] == [600, 600, 1200]
    assert [(one.project, one.user, one.priority) for one in entries[1:]] == [
        ("vision", "ann", 0),
        ("speech", "bob", 3),
    ]
    said = run("policy", "try", "--trace", str(trace), "--nodes", "1x2,1x1", "--json").document
    assert said["today"]["avg_jct_s"] == pytest.approx((600 + 600 + 1790) / 3)


class TestBesideAScheduler:
    async def test_a_journal_that_a_scheduler_writes_to_is_read_as_it_is_and_not_disturbed(
        self, tmp_path: Path
    ) -> None:
        """In the middle of a read the scheduler commits; it still owns the file; what came later is not half seen."""
        path = tmp_path / "journal.db"
        live = await SqliteJournal.open(path, busy_timeout_s=0.0)
        try:
            await live.commit(THREE_DAYS)
            with JournalHistory.of(path) as opened:
                assert opened._connection.execute("BEGIN") is not None  # pyright: ignore[reportPrivateUsage]
                before = opened._connection.execute("SELECT count(*) FROM jobs").fetchone()  # pyright: ignore[reportPrivateUsage]
                await live.commit([past(60, (60, 120))])
                after = opened._connection.execute("SELECT count(*) FROM jobs").fetchone()  # pyright: ignore[reportPrivateUsage]
                assert before == after == (len(THREE_DAYS),)
                opened._connection.execute("COMMIT")  # pyright: ignore[reportPrivateUsage]
                assert len(list(opened.jobs(at(-1e6), NOW))) == len(THREE_DAYS) + 1
            assert (
                run("policy", "try", "--history", "1d", "--journal", str(path), "--json").document["new"][
                    "jobs"
                ]
                == 4
            )
            await live.commit([past(70)])
            assert live.incarnation == 1
        finally:
            await live.close()

    async def test_a_writer_in_the_middle_of_its_work_keeps_nobody_from_reading(self, journal: Path) -> None:
        with closing(sqlite3.connect(journal, isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            assert len(jobs_of(journal)) == len(THREE_DAYS)

    def test_nothing_is_ever_written(self, journal: Path) -> None:
        before = hashlib.sha256(journal.read_bytes()).digest()
        with JournalHistory.of(journal) as opened, pytest.raises(sqlite3.OperationalError, match="readonly"):
            opened._connection.execute("UPDATE meta SET opened = 7")  # pyright: ignore[reportPrivateUsage]
        assert hashlib.sha256(journal.read_bytes()).digest() == before

    async def test_more_jobs_than_are_read_at_once_are_all_read_once(self, tmp_path: Path) -> None:
        """Also those of one moment."""
        changes = [past(number // 400, (number, number + 1)) for number in range(AT_ONCE + 300)]
        ids = [job.id for job in jobs_of(await written(tmp_path / "journal.db", changes))]
        assert sorted(ids) == sorted(change.job.id for change in changes)

    def test_a_journal_of_an_earlier_release_is_left_as_it_is(self, tmp_path: Path) -> None:
        golden = (Path(__file__).parents[1] / "golden" / "journal-4.db").read_bytes()
        path = tmp_path / "journal.db"
        path.write_bytes(golden)
        with pytest.raises(JournalUnusable, match="schema version 4, and is only read here"):
            jobs_of(path)
        assert path.read_bytes() == golden

    @pytest.mark.parametrize("text", ["cut", "no database at all, but as long as one would be. " * 20])
    def test_what_is_no_journal_is_refused_by_its_name(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "journal.db"
        path.write_text(text)
        with pytest.raises(JournalUnusable, match=f"the journal {path} is damaged"):
            jobs_of(path)

    def test_a_file_at_rest_is_read_also_where_nothing_can_be_made_beside_it(self, journal: Path) -> None:
        journal.with_name("journal.db-shm").mkdir()  # in the place of SQLite's own file
        assert len(jobs_of(journal)) == len(THREE_DAYS)

    async def test_a_document_that_cannot_be_read_is_counted_and_takes_no_others_with_it(
        self, journal: Path
    ) -> None:
        with closing(sqlite3.connect(journal, isolation_level=None)) as hand:
            hand.execute("UPDATE jobs SET doc = '{' WHERE id = ?", (THREE_DAYS[1].job.id,))
        with JournalHistory.of(journal) as opened:
            found = history(opened.jobs(at(-1e6), NOW), at(0), NOW)
        assert (len(found.entries), found.left_out[LeftOut.UNKNOWN]) == (2, 1)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "give --trace FILE or --history 30d, one of the two"),
        (("--history", "30d", "--trace", "x.csv"), "one of the two"),
        (("--history", "soon"), "--history soon: write it as 30d, 12h or 4w"),
        (("--history", "999999w"), "is longer than time goes back"),
        (("--trace", "x.csv"), "give them with --nodes"),
        (("--trace", "x.csv", "--journal", "y.db"), "--journal belongs to --history"),
        (("--history", "1d", "--journal", "/none/journal.db"), "there is no journal /none/journal.db"),
        (
            ("--history", "1h", "--nodes", "1x1", "--journal", "JOURNAL"),
            "no job of the last 1h that ran and ended",
        ),
    ],
)
def test_what_is_wrong_is_said(journal: Path, args: tuple[str, ...], words: str) -> None:
    ran = run("policy", "try", *(str(journal) if arg == "JOURNAL" else arg for arg in args))
    assert ran.code
    assert re.search(re.escape(words), " ".join(ran.err.split())), ran.err
