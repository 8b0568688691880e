"""What the journal takes comes back; what cannot be read any more stands alone, whoever broke it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.adapters.journal import SqliteJournal
from scheduler.api.cursors import place_of
from scheduler.core import lifecycle
from scheduler.core.codec import UNREADABLE, UNREADABLE_LOOP, encode
from scheduler.core.contender import Share
from scheduler.core.lifecycle import RunEnded
from scheduler.core.model import ATTEMPT, EVENT, JOB, Ending, Job, JobId, Outcome, Reason, Status
from scheduler.core.plain_values import plain, plain_dict, plain_text
from scheduler.core.retry import RetryPolicy
from scheduler.errors import Unstorable
from scheduler.ports import Change, JobQuery, Sort
from scheduler.testing import MemoryJournal, a_change, a_job, a_repair
from scheduler.testing.attempts import an_attempt, telling
from scheduler.testing.clock import NOON

NEWER = {"loop": "sft", "name": "of a newer release", "invented_later": True}


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteJournal]:
    journal = await SqliteJournal.open(path)
    try:
        yield journal
    finally:
        await journal.close()


# What comes from a run


def nested(levels: int) -> Any:
    value: Any = "end"
    for level in range(levels):
        value = {"a": value} if level % 2 else [value]
    return value


class Odd:
    def __str__(self) -> str:
        raise RuntimeError("no")


ODD: list[Any] = [10**400, -(10**5000), 2**63, -0.0, 1e308, float("nan"), float("inf"), -float("inf")]
ODD += ["\ud83d", "\0", "\u202e", "\udc00x", "a" * 5000, Odd(), b"\xff", {1, 2}, 1 + 2j]
ODD += [nested(63), nested(230), nested(5000)]


def odd(number: int) -> Any:
    return ODD[number]


anything = st.recursive(
    # By number: what Hypothesis would print of some of them is an error.
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters())
    | st.integers(0, len(ODD) - 1).map(odd),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(
            st.text(st.characters()) | st.integers() | st.floats() | st.none(), inner, max_size=4
        )
    ),
    max_leaves=12,
)


def _is_key(value: Any) -> bool:
    return not isinstance(value, set)


objects = st.dictionaries(
    st.text(st.characters()) | st.integers() | st.integers(0, len(ODD) - 4).map(odd).filter(_is_key),
    anything,
    max_size=4,
)
words = st.text(st.characters(), max_size=40)


@settings(max_examples=300, deadline=None)
@given(progress=objects, result=objects, evidence=objects, message=words)
def test_whatever_a_run_says_is_kept_and_comes_back_the_same(
    progress: Any, result: Any, evidence: Any, message: str
) -> None:
    """B1, B2: a value that cannot be written blocks the end of its run; one that cannot be read, every list."""
    reason = Reason(code="x", message=plain_text(message), detail=plain_text(message))
    job = a_job("completed", progress=plain_dict(progress)[0], result=plain_dict(result)[0], reason=reason)
    assert JOB.validate_json(encode(JOB, job, "it")) == job
    run = replace(an_attempt(), evidence=plain_dict(evidence)[0], reason=reason)
    event = telling(run, job).event
    assert EVENT.validate_json(encode(EVENT, event, "it")) == event
    assert event.attempt is not None
    assert ATTEMPT.validate_json(encode(ATTEMPT, event.attempt, "it")) == event.attempt
    strict = json.loads(encode(JOB, job, "it"), parse_constant=pytest.fail)
    assert strict["id"] == job.id


@settings(max_examples=100, deadline=None)
@given(anything)
def test_what_is_plain_is_json_for_everybody(value: Any) -> None:
    """B1: PostgreSQL's `jsonb` takes no NUL and no half of a pair, a browser no NaN, and neither takes Python."""
    made = plain(value).value
    text = json.dumps(made, allow_nan=False, ensure_ascii=False)
    text.encode()
    assert json.loads(text) == made
    assert "\\u0000" not in text


@pytest.mark.parametrize(
    "value",
    [{"a": "\ud83d"}, {"a": 10**5000}, nested(230), {"a": Odd()}, {"a": b"\xff"}, [1], "text"],
    ids=["surrogate", "huge", "deep", "object", "bytes", "list", "text"],
)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_what_would_not_come_back_is_refused_by_name_and_leaves_nothing(
    kind: str, value: Any, tmp_path: Path
) -> None:
    """B2: a journal that takes what it cannot read again has lost it, and the list with it."""
    journal = MemoryJournal() if kind == "memory" else await SqliteJournal.open(tmp_path / "journal.db")
    job, neighbour = a_job(result=value), a_job()
    refused, taken = await asyncio.gather(
        journal.commit([a_change(job)]), journal.commit([a_change(neighbour)]), return_exceptions=True
    )
    assert isinstance(refused, Unstorable)
    assert taken is None
    assert await journal.active() == [neighbour]
    await journal.close()


# What cannot be read any more


@pytest.fixture
async def broken(path: Path) -> AsyncIterator[tuple[SqliteJournal, list[Job], JobId]]:
    """A journal of five jobs of which a hand broke the third."""
    jobs = [a_job(), a_job("paused"), a_job("running"), a_job("completed"), a_job("failed")]
    async with opened(path) as journal:
        for job in jobs:
            await journal.commit([a_change(job, is_news=True)])
        yield journal, jobs, jobs[2].id


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def by_hand(path: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(path)) as file, file:
        assert file.execute(statement, values).rowcount > 0


WAYS: dict[str, str] = {
    "no JSON": "'{\"id\": '",
    "empty": "''",
    "another value": "'[1, 2]'",
    "no text": "x'ff00fe'",
    "a wrong result": "json_set(doc, '$.result', 'a text')",
    "a wrong progress": "json_set(doc, '$.progress', json('[1]'))",
    "a field gone": "json_remove(doc, '$.reason')",
    "a spec of a newer release": f"json_set(doc, '$.spec', json('{json.dumps(NEWER)}'))",
    "a status of a newer release": "json_set(doc, '$.status', 'dreaming')",
    "nested": "'" + '{"a":' * 300 + "1" + "}" * 300 + "'",
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_job_that_cannot_be_read_takes_no_other_with_it(
    broken: tuple[SqliteJournal, list[Job], JobId], path: Path, way: str
) -> None:
    """B2: one document of five: list, start-up, counts and queries answer, and the one is named in each."""
    journal, jobs, job_id = broken
    by_hand(path, f"UPDATE jobs SET doc = {WAYS[way]} WHERE id = ?", job_id)
    for sort in Sort:
        found = await journal.page(JobQuery(sort=sort))
        assert {job.id for job in found} == {job.id for job in jobs}
    pages = [page async for page in _pages(journal, 2)]
    assert [job.id for page in pages for job in page] == [job.id for job in reversed(jobs)]
    active = {job.id: job for job in await journal.active()}
    assert active.keys() == {job.id for job in jobs[:3]}
    for other in jobs:
        if other.id != job_id:
            assert await journal.get(other.id) == other
    odd = await journal.get(job_id)
    assert odd is not None
    assert odd == active[job_id]
    assert (odd.status, odd.version, odd.fence, odd.spec.user) == (Status.RUNNING, 1, 1, "ann")
    assert (odd.reason.code, odd.allocation is not None) == (UNREADABLE, True)
    assert set(journal.unreadable) == {job_id}
    assert (await journal.counts())[Status.RUNNING] == 1
    JOB.validate_json(encode(JOB, odd, "what stands in can be written again"))


async def _pages(journal: SqliteJournal, limit: int) -> AsyncIterator[list[Job]]:
    query = JobQuery(limit=limit)
    while page := await journal.page(query):
        yield page
        last = page[-1]
        query = replace(query, after=place_of(last, query.sort))


async def test_what_can_still_be_read_of_a_job_is_kept(
    broken: tuple[SqliteJournal, list[Job], JobId], path: Path
) -> None:
    """B2: a wrong result costs the result; the spec, the times and the nodes of the run are as they were."""
    journal, jobs, job_id = broken
    by_hand(path, "UPDATE jobs SET doc = json_set(doc, '$.result', 7) WHERE id = ?", job_id)
    odd = await journal.get(job_id)
    assert odd is not None
    assert odd == replace(jobs[2], reason=odd.reason)
    assert "result" in odd.reason.message
    by_hand(
        path, "UPDATE jobs SET doc = json_set(doc, '$.spec', json(?)) WHERE id = ?", json.dumps(NEWER), job_id
    )
    odd = await journal.get(job_id)
    assert odd is not None
    assert (odd.spec.loop, odd.raw_spec) == (UNREADABLE_LOOP, NEWER)
    assert "spec.invented_later" in odd.reason.message


async def test_it_can_be_ended_and_is_whole_again_then(
    broken: tuple[SqliteJournal, list[Job], JobId], path: Path
) -> None:
    """B2, P1: a job that nobody can read must not be one that nobody can end."""
    journal, _, job_id = broken
    by_hand(path, "UPDATE jobs SET doc = 'nothing' WHERE id = ?", job_id)
    odd = await journal.get(job_id)
    assert odd is not None
    outcome = Outcome(ending=Ending.COMPLETED, reason=Reason(code="completed", message="done"))
    event = RunEnded(at=odd.updated_at, by="scheduler", fence=odd.fence, outcome=outcome, end_of_line=9)
    after, _ = lifecycle.apply(odd, event, RetryPolicy())
    await journal.commit([Change(job=after, event=lifecycle.record(odd, after, event), before=odd.version)])
    assert await journal.get(job_id) == after
    assert after.status is Status.COMPLETED
    assert journal.unreadable == {}


async def test_lines_of_a_history_and_runs_that_cannot_be_read_stand_alone(path: Path) -> None:
    """B2: the history of a job is there without the one line, and says that one is missing."""
    async with opened(path) as journal:
        job = a_job("running")
        first = telling(an_attempt(), job)
        await journal.commit([first])
        later = replace(job, version=2)
        await journal.commit([a_change(later, before=job)])
        by_hand(path, "UPDATE events SET doc = '{' WHERE version = 1")
        by_hand(path, "UPDATE attempts SET doc = json_set(doc, '$.started_at', 'soon')")
        lost, kept = await journal.events(job.id)
        assert (lost.version, lost.reason.code, lost.job_id) == (1, UNREADABLE, job.id)
        assert kept == a_change(later, before=job).event
        (run,) = await journal.attempts(job.id)
        assert run.reason is not None
        assert (run.reason.code, run.started_at) == (UNREADABLE, job.created_at)
        assert run.allocation == first.event.attempt.allocation if first.event.attempt else False


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE attempts SET doc = '{'",
        "UPDATE attempts SET doc = json_set(doc, '$.started_at', 'soon')",
        "UPDATE jobs SET doc = '{'",
        "UPDATE jobs SET doc = json_remove(doc, '$.spec.resources')",
    ],
)
async def test_a_run_that_cannot_be_read_is_left_out_of_the_usage_and_counted_as_such(
    path: Path, harm: str
) -> None:
    """O5: sums that silently leave something out are wrong."""
    async with opened(path) as journal:
        harmed, whole = a_job("running"), a_job("running")
        await journal.commit([telling(an_attempt(), harmed), telling(an_attempt(), whole)])
        by_hand(path, f"{harm} WHERE {'job_id' if 'attempts' in harm else 'id'} = '{harmed.id}'")
        found = await journal.held_runs(NOON, NOON + timedelta(days=1), None, 10)
        assert ([run.job_id for run in found.runs], found.left_out) == ([whole.id], 1)


async def test_a_change_that_cannot_be_read_is_replaced_by_the_job_or_named(path: Path) -> None:
    """B2, R6: neither the mirror nor the webhook waits behind it, and nothing made up is sent."""
    async with opened(path) as journal:
        jobs = [a_job(), a_job(), a_job()]
        for job in jobs:
            await journal.commit([a_change(job, is_news=True)])
        for table in ("outbox", "notices"):
            by_hand(path, f"UPDATE {table} SET doc = '' WHERE job_id <> ?", jobs[2].id)
        by_hand(path, "UPDATE jobs SET doc = '' WHERE id = ?", jobs[1].id)
        for rows in (await journal.outbox(10), await journal.notices(10)):
            assert [row.job.id for row in rows] == [job.id for job in jobs]
            assert [row.unreadable for row in rows] == [False, True, False]
            assert [rows[0].job, rows[2].job] == [jobs[0], jobs[2]]


async def test_a_repair_that_cannot_be_read_is_left_out(path: Path) -> None:
    """B2."""
    async with opened(path) as journal:
        repairs = [a_repair(), a_repair(), a_repair()]
        await journal.commit([], repairs)
        by_hand(path, "UPDATE repairs SET doc = 'x' WHERE number = 2")
        assert await journal.repairs(10) == [(3, repairs[2]), (1, repairs[0])]


async def test_an_older_file_with_a_broken_document_is_opened(tmp_path: Path) -> None:
    """B2, O2: an upgrade that stops at one document of a hundred thousand keeps everybody from starting."""
    source = Path(__file__).parent.parent / "golden" / "journal-3.db"
    path = tmp_path / "journal.db"
    path.write_bytes(source.read_bytes())
    with closing(sqlite3.connect(path)) as file, file:
        (first,) = file.execute("SELECT id FROM jobs ORDER BY created_at").fetchone()
        (total,) = file.execute("SELECT count(*) FROM jobs").fetchone()
        file.execute("UPDATE jobs SET doc = '{' WHERE id = ?", (first,))
    async with opened(path) as journal:
        found = await journal.page(JobQuery(limit=1000))
        assert len(found) == total
        assert [job.id for job in found if job.reason.code == UNREADABLE] == [first]


# Shares and notes


async def test_a_share_or_a_note_that_cannot_be_read_takes_no_other_with_it(tmp_path: Path) -> None:
    """The scheduler starts; the project has the default until it is set again."""
    path = tmp_path / "journal.db"
    async with opened(path) as journal:
        for name in ("a", "b", "c"):
            await journal.set_project(name, Share(quota=3.0))
        await journal.note("ledger", {"losses": []})
    with closing(sqlite3.connect(path)) as file:
        file.execute("UPDATE projects SET doc = '{\"weight\": \"heavy\"}' WHERE name = 'a'")
        file.execute("UPDATE projects SET doc = x'ff' WHERE name = 'b'")
        file.execute("UPDATE notes SET doc = '[1'")
        file.commit()
    async with opened(path) as journal:
        assert (await journal.projects(), await journal.noted("ledger")) == ({"c": Share(quota=3.0)}, None)
        await journal.set_project("a", Share(quota=4.0))
        await journal.note("ledger", {"losses": [1]})
        assert (await journal.projects())["a"] == Share(quota=4.0)
        assert await journal.noted("ledger") == {"losses": [1]}
