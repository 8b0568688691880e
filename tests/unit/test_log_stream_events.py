"""The stream of logs: what a follower is told, in which order, and that a cut costs no byte and doubles none."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import aclosing
from itertools import count
from pathlib import Path
from time import process_time
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource
from hypothesis import given, settings
from hypothesis import strategies as st
from served import app_at_port

from scheduler.api.base import DoubtNotice, ReasonDocument
from scheduler.api.logs import (
    LOG_EVENTS,
    AttemptNotice,
    EndNotice,
    LogEvent,
    LogLines,
    LogView,
    RankLog,
    WaitNotice,
)
from scheduler.client import AsyncClient, Client, flows
from scheduler.core.model import Fence, JobId, Status
from scheduler.errors import JobNotFound, MirrorRefused, RegistryUnavailable, ServerUnreachable
from scheduler.runs.run_dir import RunDir
from scheduler.settings import Settings
from serve_app import log_stream
from serve_app.app import create_app
from serve_app.log_stream import Follower, LogPosition, PollTiming, Stage, StreamQuery
from tests.unit.edge import SUBMIT, client_of, problem_of
from tests.unit.recording_registry import JOB_ID, RecordingRegistry

URL = f"{SUBMIT}/{JOB_ID}/logs/stream"
NO_PAUSE = PollTiming(shortest_s=0.0, longest_s=0.0)
RUNNING: dict[str, Any] = {"status": Status.RUNNING, "attempt": 1, "reason": "attempt 1 is training"}
DONE: dict[str, Any] = {"status": Status.COMPLETED, "reason": "every rank returned"}
RETRY: dict[str, Any] = {"status": Status.QUEUED, "reason": "rank 1 was killed; tried again"}


def because(message: str) -> ReasonDocument:
    return ReasonDocument(code="test", message=message, detail=None)


class Story(RecordingRegistry):
    """One job, told step by step: each look at it is at the next step, and in the end at the last.

    A step is what changes: `status`, `attempt`, `reason`; `prints`, by rank, is what the newest attempt adds to its
    logs; `raises` comes instead of an answer.
    """

    def __init__(self, folder: Path, *steps: dict[str, Any], ranks: int = 1) -> None:
        super().__init__()
        self.folder, self.steps, self.ranks = folder, list(steps), ranks
        self.now: dict[str, Any] = {"status": Status.QUEUED, "attempt": 0, "reason": "in the line"}
        self.endings: dict[int, str] = {}

    def tell_all(self) -> Story:
        """As it is when all has happened."""
        while self.steps:
            self._tell()
        return self

    def _tell(self) -> None:
        step = dict(self.steps.pop(0)) if self.steps else {}
        printed, raises = step.pop("prints", {}), step.pop("raises", None)
        before, self.now = self.now, self.now | step
        for rank, data in printed.items():
            file = self._run(self.now["attempt"]).log_file(rank)
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("ab") as log:
                log.write(data)
        if before["status"] is Status.RUNNING and self.now["status"] is not Status.RUNNING:
            self.endings[before["attempt"]] = self.now["reason"]
        if raises:
            raise raises

    async def log_view(self, job_id: str, attempt: int, offsets: dict[int, int], limit: int) -> LogView:
        if job_id != JOB_ID:
            raise JobNotFound.of(job_id)
        if offsets or len(self.calls) > 1:
            self._tell()
        ending = self.endings.get(attempt)
        return LogView(
            job_id=job_id,
            status=self.now["status"],
            reason=because(self.now["reason"]),
            queue_position=None,
            newest_attempt=self.now["attempt"],
            most_ranks=self.ranks,
            is_over=self.now["status"] is not Status.RUNNING or attempt < self.now["attempt"],
            ending=because(ending) if ending else None,
            logs=[self._read(attempt, rank, offset, limit) for rank, offset in offsets.items()],
        )

    def _read(self, attempt: int, rank: int, offset: int, limit: int) -> RankLog:
        part = self._run(attempt).read_log(rank, offset, limit)
        where = {"offset": part.offset, "next_offset": part.next_offset}
        return RankLog(rank=rank, text=part.text, is_end=part.is_end, **where)

    def _run(self, attempt: int) -> RunDir:
        return RunDir.of(self.folder, JobId(JOB_ID), Fence(attempt))


async def streamed(
    registry: RecordingRegistry, last_id: str | None = None, at_most: int = 10_000, **query: Any
) -> tuple[list[LogEvent], str]:
    """The events up to the end, or the first *at_most*, and the id of the last one."""
    answer: Any = await log_stream.answer(registry, JOB_ID, StreamQuery(**query), last_id, NO_PAUSE)
    found, body = list[LogEvent](), answer.body_iterator
    source = EventSource(httpx.Response(200, headers=dict(answer.headers), content=body))
    async with aclosing(source.aiter_sse()) as events:
        async for event in events:
            if event.data:
                last_id = event.id
                found.append(LOG_EVENTS[event.event].model_validate_json(event.data))
            if len(found) >= at_most:
                break
    await body.aclose()
    return found, last_id or ""


def text_of(events: list[LogEvent], rank: int = 0, attempt: int = 1) -> str:
    lines = [one for one in events if isinstance(one, LogLines)]
    return "".join(one.text for one in lines if (one.rank, one.attempt) == (rank, attempt))


def told(events: list[LogEvent]) -> list[str]:
    """Events in a few words each."""

    def words(event: LogEvent) -> str:
        match event:
            case LogLines():
                return f"{event.rank}: {event.text.strip()}"
            case AttemptNotice():
                why = f": {event.reason.message}" if event.reason else ""
                return f"attempt {event.attempt} {event.state}{why}"
            case WaitNotice():
                return f"waits: {event.reason.message}"
            case DoubtNotice():
                return f"doubt: {event.message}"
            case EndNotice():
                return f"end of {event.over}, {event.status}: {event.reason.message}"

    return [words(event) for event in events]


# What is told


async def test_a_job_is_followed_from_the_line_through_a_retry_to_its_end(tmp_path: Path) -> None:
    """L8: who watches must see why it waits, what each rank prints, and why it ended, in the order it happened."""
    registry = Story(
        tmp_path,
        {"reason": "needs 4 CPUs; 2 are free"},
        {"reason": "needs 4 CPUs; 2 are free"},
        {"reason": "needs 4 CPUs; 3 are free"},
        RUNNING,
        {"prints": {0: b"hello\n", 1: b"hello too\n"}},
        {"prints": {1: b"step 1\n"}},
        {**RETRY, "prints": {0: b"last words\n"}},
        {},
        {},
        {"status": Status.RUNNING, "attempt": 2},
        {"prints": {0: b"again\n"}},
        DONE,
        ranks=2,
    )
    events, _ = await streamed(registry)
    assert told(events) == [
        "waits: needs 4 CPUs; 2 are free",
        "waits: needs 4 CPUs; 3 are free",
        "attempt 1 began",
        "0: hello",
        "1: hello too",
        "1: step 1",
        "0: last words",
        "attempt 1 ended: rank 1 was killed; tried again",
        "waits: rank 1 was killed; tried again",
        "attempt 2 began",
        "0: again",
        "attempt 2 ended: every rank returned",
        "end of job, completed: every rank returned",
    ]


async def test_attempts_that_come_and_go_between_two_looks_are_all_told(tmp_path: Path) -> None:
    """A loop that raises at once fails three times in a second: each traceback counts."""
    attempts = [
        step
        for number in (1, 2, 3)
        for step in ({**RUNNING, "attempt": number, "prints": {0: f"boom {number}\n".encode()}}, RETRY)
    ]
    registry = Story(tmp_path, *attempts, {"status": Status.FAILED, "reason": "failed 3 times"})
    first = registry._tell
    registry.now["attempt"] = 1

    def jump() -> None:
        first()
        registry.tell_all()

    registry._tell = jump
    (tmp_path / JOB_ID / "run-1").mkdir(parents=True)
    events, _ = await streamed(registry, **{"from": "0.over"})
    assert [line for line in told(events) if line.startswith("0:")] == ["0: boom 1", "0: boom 2", "0: boom 3"]
    assert told(events)[-1] == "end of job, failed: failed 3 times"


async def test_one_attempt_alone_ends_with_it_whatever_the_job_does(tmp_path: Path) -> None:
    registry = Story(
        tmp_path,
        {**RUNNING, "prints": {0: b"one\n"}},
        RETRY,
        {"status": Status.RUNNING, "attempt": 2, "prints": {0: b"two\n"}},
    ).tell_all()
    events, _ = await streamed(registry, attempt=1)
    assert told(events) == [
        "attempt 1 began",
        "0: one",
        "attempt 1 ended: rank 1 was killed; tried again",
        "end of attempt, running: rank 1 was killed; tried again",
    ]


async def test_an_attempt_to_come_is_waited_for(tmp_path: Path) -> None:
    registry = Story(tmp_path, {}, {**RUNNING, "prints": {0: b"one\n"}}, {}, DONE)
    events, _ = await streamed(registry, attempt=1)
    assert told(events)[:3] == ["waits: in the line", "attempt 1 began", "0: one"]
    assert told(events)[-1] == "end of attempt, completed: every rank returned"


@pytest.mark.parametrize("status", [Status.PAUSED, Status.CANCELLED, Status.FAILED, Status.COMPLETED])
async def test_the_end_says_why(tmp_path: Path, status: Status) -> None:
    """A stream that only closes leaves open whether the job or the network ended."""
    registry = Story(tmp_path, RUNNING, {}, {"status": status, "reason": f"it is {status}"})
    events, _ = await streamed(registry)
    end = events[-1]
    assert isinstance(end, EndNotice)
    assert (end.over, end.status, end.attempt, end.reason.message) == ("job", status, 1, f"it is {status}")


async def test_a_job_that_never_ran_has_an_end_too(tmp_path: Path) -> None:
    events, _ = await streamed(
        Story(tmp_path, {"status": Status.CANCELLED, "reason": "withdrawn"}).tell_all()
    )
    assert told(events) == ["end of job, cancelled: withdrawn"]


async def test_what_was_printed_just_before_the_end_is_sent_before_it(tmp_path: Path) -> None:
    """The traceback is the last that a run prints, and the reason that anybody looks."""
    last = "".join(f"line {number} of the traceback\n" for number in range(10_000)) + "no end of line"
    registry = Story(tmp_path, RUNNING, {}, {**DONE, "prints": {0: last.encode()}})
    events, _ = await streamed(registry)
    assert text_of(events) == last
    assert told(events)[-2:] == [
        "attempt 1 ended: every rank returned",
        "end of job, completed: every rank returned",
    ]


async def test_chosen_ranks_are_followed_and_no_other(tmp_path: Path) -> None:
    prints = {rank: f"rank {rank}\n".encode() for rank in range(4)}
    registry = Story(tmp_path, {**RUNNING, "prints": prints}, DONE, ranks=4).tell_all()
    events, _ = await streamed(registry, rank="2,0")
    assert [line for line in told(events) if "rank" in line] == ["0: rank 0", "2: rank 2"] + [
        line for line in told(events) if "every rank" in line
    ]


# Where it begins


@pytest.mark.parametrize(
    ("log", "query", "expected"),
    [
        ("one\ntwo\nthree\n", {"offset": 4}, "two\nthree\n"),
        ("one\ntwo\nthree\n", {"offset": 400}, ""),
        ("one\ntwo\nthree\n", {"tail_bytes": 6}, "three\n"),
        ("one\ntwo\nthree\n", {"tail_bytes": 8}, "three\n"),
        ("one\ntwo\nthree\n", {"tail_bytes": 14}, "one\ntwo\nthree\n"),
        ("one\ntwo\nthree\n", {"tail_bytes": 100}, "one\ntwo\nthree\n"),
        ("no line at all", {"tail_bytes": 3}, "all"),
        ("a line\n", {"tail_bytes": 3}, "ne\n"),
        ("ä" * 10, {"tail_bytes": 5}, "ää"),
        ("ä" * 10, {"tail_bytes": 4}, "ää"),
        ("ää\nöö\n", {"tail_bytes": 7}, "öö\n"),
        ("", {"tail_bytes": 3}, ""),
    ],
)
async def test_it_begins_where_it_was_asked_to(
    tmp_path: Path, log: str, query: dict[str, int], expected: str
) -> None:
    """A page shows the last lines at once, whole, and not 2 GB from the beginning."""
    registry = Story(tmp_path, {**RUNNING, "prints": {0: log.encode()}}, DONE).tell_all()
    events, _ = await streamed(registry, **query)
    assert text_of(events) == expected
    assert told(events)[0] == "attempt 1 began"


# Cuts


PIECES = st.lists(
    st.dictionaries(
        st.integers(0, 1),
        st.one_of(
            st.text(st.sampled_from("aé€😀\n"), max_size=8).map(str.encode),
            st.binary(max_size=4),
            st.just(b"x" * 70_000 + b"\n"),
        ),
        max_size=2,
    ),
    max_size=6,
)


@given(first=PIECES, second=PIECES, cuts=st.lists(st.integers(1, 4), max_size=30))
def test_a_stream_cut_anywhere_and_resumed_says_everything_exactly_once(
    first: list[dict[int, bytes]], second: list[dict[int, bytes]], cuts: list[int]
) -> None:
    """A line that is lost at a reconnect is the one that mattered; one that is doubled looks like a second step."""
    again = {"status": Status.RUNNING, "attempt": 2, "reason": "again"}
    steps = [RUNNING, *({"prints": piece} for piece in first), RETRY]
    steps += [again, *({"prints": piece} for piece in second), DONE]

    async def follow(folder: Path) -> list[LogEvent]:
        registry, events, last_id = Story(folder, *steps, ranks=2), list[LogEvent](), None
        for cut in cuts:
            found, last_id = await streamed(registry, last_id, at_most=cut)
            events += found
            if isinstance(found[-1], EndNotice):
                return events
        found, _ = await streamed(registry, last_id)
        return events + found

    with tempfile.TemporaryDirectory() as folder:
        events = asyncio.run(follow(Path(folder)))
        for attempt in (1, 2):
            for rank in (0, 1):
                file = RunDir.of(Path(folder), JobId(JOB_ID), Fence(attempt)).log_file(rank)
                printed = file.read_bytes() if file.exists() else b""
                lines = [one for one in events if isinstance(one, LogLines)]
                mine = [one for one in lines if (one.rank, one.attempt) == (rank, attempt)]
                places = [0, *(one.next_offset for one in mine)]
                assert [one.offset for one in mine] == places[:-1], "no gap, and nothing twice"
                assert places[-1] == len(printed)
                if "\ufffd" not in (text := printed.decode(errors="replace")):
                    assert text_of(events, rank, attempt) == text
    notices = [line for line in told(events) if line.startswith(("attempt", "end"))]
    assert notices == [
        "attempt 1 began",
        f"attempt 1 ended: {RETRY['reason']}",
        "attempt 2 began",
        "attempt 2 ended: every rank returned",
        "end of job, completed: every rank returned",
    ]


async def test_a_stream_that_had_ended_is_not_told_again_unless_the_job_went_on(tmp_path: Path) -> None:
    """A browser connects again by itself, for ever, until it is answered 204."""
    registry = Story(tmp_path, {**RUNNING, "prints": {0: b"one\n"}}, DONE).tell_all()
    _, last_id = await streamed(registry)
    async with client_of(registry) as client:
        assert (await client.get(URL, headers={"Last-Event-ID": last_id})).status_code == 204
        assert (await client.get(URL, params={"from": last_id})).status_code == 204
    registry.steps = [{"status": Status.RUNNING, "attempt": 2, "prints": {0: b"two\n"}}, DONE]
    registry.tell_all()
    events, _ = await streamed(registry, last_id)
    assert told(events)[:2] == ["attempt 2 began", "0: two"]


@given(
    st.integers(0, 2**30),
    st.sampled_from(Stage),
    st.dictionaries(st.integers(0, 4095), st.integers(0, 2**49), max_size=5),
)
def test_a_position_is_read_as_it_was_written(attempt: int, stage: Stage, offsets: dict[int, int]) -> None:
    position = LogPosition(attempt, stage, offsets)
    text = str(position)
    if attempt < 10**9:
        assert LogPosition.of(text) == position


# Whole lines


def looks(follower: Follower, *logs: tuple[float, bytes]) -> list[str]:
    """What *follower* says at each of these times, when this is in the log."""
    said: list[str] = []
    for now_s, written in logs:
        rest = written[follower.position.offsets[0] :]
        log = RankLog(
            rank=0,
            text=rest.decode(errors="replace"),
            offset=follower.position.offsets[0],
            next_offset=follower.position.offsets[0] + len(rest),
            is_end=True,
        )
        view = LogView(
            job_id=JOB_ID,
            status=Status.RUNNING,
            reason=because("it runs"),
            queue_position=None,
            newest_attempt=1,
            most_ranks=1,
            is_over=False,
            ending=None,
            logs=[log],
        )
        said.append(
            "".join(event.text for event in follower.take(view, now_s) if isinstance(event, LogLines))
        )
    return said


def test_the_beginning_of_a_line_waits_for_its_end_but_not_for_ever() -> None:
    """Ranks that write at the same time would break into each other's lines; a prompt has no end of line."""
    follower = Follower(position=LogPosition(1, Stage.OPEN, {0: 0}), ranks=(0,))
    third = b"one\ntwo\nth"
    said = looks(follower, (0.0, b"one\ntw"), (0.5, third), (0.9, third), (2.0, third))
    assert said == ["one\n", "two\n", "", "th"]
    assert looks(follower, (2.1, b"one\ntwo\nthree\n")) == ["ree\n"]


def test_half_a_character_waits_for_the_other_half_however_long() -> None:
    """Half of an umlaut, sent too early, is a replacement character for ever."""
    follower = Follower(position=LogPosition(1, Stage.OPEN, {0: 0}), ranks=(0,))
    whole = "€\n".encode()
    assert looks(follower, (0.0, whole[:2]), (9.0, whole[:2]), (9.5, whole)) == ["", "", "€\n"]


async def test_a_character_is_never_cut_in_two(tmp_path: Path) -> None:
    half, other = "ü".encode()[:1], "ü".encode()[1:]
    registry = Story(tmp_path, RUNNING, {"prints": {0: half}}, {}, {"prints": {0: other}}, {}, DONE)
    events, _ = await streamed(registry)
    assert text_of(events) == "ü"


# When something is away


async def test_a_registry_that_is_away_is_told_and_the_stream_goes_on(tmp_path: Path) -> None:
    """R1: a restart of the scheduler is no end of the run."""
    away = {"raises": RegistryUnavailable("the scheduler does not answer")}
    registry = Story(
        tmp_path, {**RUNNING, "prints": {0: b"one\n"}}, {}, away, away, {"prints": {0: b"two\n"}}, DONE
    )
    events, _ = await streamed(registry)
    assert told(events)[:5] == [
        "attempt 1 began",
        "0: one",
        "doubt: the scheduler does not answer",
        "doubt: None",
        "0: two",
    ]
    assert told(events)[-1].startswith("end of job, completed")


async def test_a_refusal_in_the_middle_ends_the_stream_with_it(tmp_path: Path) -> None:
    registry = Story(tmp_path, RUNNING, {}, {"raises": MirrorRefused("wrong key")})
    events, _ = await streamed(registry)
    assert told(events)[-1] == "end of stream, None: wrong key"


@pytest.mark.parametrize(
    ("query", "headers", "status", "field"),
    [
        ("rank=x", {}, 422, "rank"),
        ("rank=", {}, 422, "rank"),
        ("rank=0,2", {}, 422, "rank"),
        ("rank=-1", {}, 422, "rank"),
        ("attempt=0", {}, 422, "attempt"),
        ("attempt=2", {}, 422, "attempt"),
        ("offset=-1", {}, 422, "offset"),
        ("tail_bytes=0", {}, 422, "tail_bytes"),
        ("offset=1&tail_bytes=1", {}, 422, "tail_bytes"),
        ("from=1.open", {}, 422, "from"),
        ("from=7.over", {}, 422, "from"),
        ("from=last", {}, 422, "from"),
        ("rank=1&from=1.open.0-0", {}, 422, "from"),
        ("", {"Last-Event-ID": "1.open.0-x"}, 422, "from"),
        ("", {"Last-Event-ID": "1" * 5000}, 422, "from"),  # read, and no position
        ("", {"Last-Event-ID": "1" * 5001}, 422, "last-event-id"),  # too long to be read
        ("tail=1", {}, 422, "tail"),
    ],
)
async def test_what_is_wrong_is_refused_before_the_stream_begins(
    tmp_path: Path, query: str, headers: dict[str, str], status: int, field: str
) -> None:
    """An error in the middle of a stream is read by nobody."""
    registry = Story(tmp_path, RUNNING, DONE, ranks=2).tell_all()
    async with client_of(registry) as client:
        problem = problem_of(await client.get(f"{URL}?{query}", headers=headers))
    assert problem.status == status
    assert [one.field for one in problem.errors] == [field]


async def test_an_unknown_job_and_a_registry_that_is_away_are_problems(tmp_path: Path) -> None:
    registry = Story(tmp_path)
    async with client_of(registry) as client:
        unknown = URL.replace(JOB_ID, JOB_ID[:-1] + "9")
        assert problem_of(await client.get(unknown)).code == "job_not_found"
        registry.refuses = RegistryUnavailable("away")
        assert problem_of(await client.get(URL)).status == 503


async def test_a_gang_too_large_to_follow_whole_is_followed_in_part(tmp_path: Path) -> None:
    """The position of each rank is in each id: thousands would not fit in a header."""
    registry = Story(tmp_path, {**RUNNING, "prints": {999: b"hi\n"}}, DONE, ranks=1000).tell_all()
    async with client_of(registry) as client:
        assert "choose 256 at most" in problem_of(await client.get(URL)).detail
        assert "hi" in (await client.get(f"{URL}?rank=999")).text


# How it is sent


async def test_the_answer_is_an_event_stream_that_no_proxy_keeps_back(tmp_path: Path) -> None:
    registry = Story(tmp_path, {**RUNNING, "prints": {0: "ä\u2028b\r\n".encode()}}, DONE).tell_all()
    async with client_of(registry) as client:
        answer = await client.get(URL)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    blocks = answer.text.split("\n\n")
    assert blocks[0].split("\n") == ["id: 0.over", "retry: 1000"]
    kind, data, event_id = blocks[2].split("\n")
    assert (kind, event_id) == ("event: log", "id: 1.open.0-8")
    assert json.loads(data.removeprefix("data: ")) == {
        "attempt": 1,
        "rank": 0,
        "text": "ä\u2028b\r\n",
        "offset": 0,
        "next_offset": 8,
    }


async def test_a_quiet_stream_is_kept_open_while_the_registry_is_slow(tmp_path: Path) -> None:
    """A proxy cuts what is silent; a registry that hangs must not keep the heartbeat back."""
    registry = Story(tmp_path, RUNNING)
    pace = PollTiming(shortest_s=0.0, longest_s=0.0, heartbeat_s=0.01)
    answer: Any = await log_stream.answer(registry, JOB_ID, StreamQuery(), None, pace)
    registry.hangs.add("log_view")
    body = answer.body_iterator
    assert (await anext(body)).startswith(b"id: 0.over\nretry: 1000")
    assert [await anext(body) for _ in range(3)] == [b": ping\n\n"] * 3
    await body.aclose()


async def test_the_registry_is_asked_less_and_less_while_nothing_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred open pages of quiet jobs must not keep the scheduler busy."""
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def slept(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    registry = Story(tmp_path, RUNNING, *[{}] * 10, {"prints": {0: b"one\n"}}, {}, DONE)
    monkeypatch.setattr(log_stream.asyncio, "sleep", slept)
    answer: Any = await log_stream.answer(registry, JOB_ID, StreamQuery())
    assert b"end" in [piece async for piece in answer.body_iterator][-1]
    assert pauses[:2] == [0.0, 0.0], "it begins at once"
    assert pauses[2:10] == pytest.approx([0.3, 0.45, 0.675, 1.0125, 1.51875, 2.0, 2.0, 2.0])
    assert 0.2 in pauses[10:], "and is quick again once something came"


def test_a_client_that_goes_away_ends_the_work(tmp_path: Path) -> None:
    """Else each closed page would go on asking for as long as its job runs."""
    registry = Story(tmp_path, {**RUNNING, "prints": {0: b"one\n"}})
    ended: list[bool] = []
    turn = log_stream.LogStream.body

    async def watched(self: Any) -> Any:
        try:
            async for piece in turn(self):
                yield piece
        finally:
            ended.append(True)

    with pytest.MonkeyPatch.context() as patch, app_at_port(create_app(registry, Settings())) as url:
        patch.setattr(log_stream.LogStream, "body", watched)
        lines = Client(url).logs(JOB_ID, follow=True)
        assert next(lines) == "one\n"
        assert not ended
        lines.close()  # pyright: ignore[reportAttributeAccessIssue]
        assert within(5, lambda: bool(ended))


def within(seconds: float, seen: Callable[[], bool]) -> bool:
    import time

    until_s = time.monotonic() + seconds
    while not seen() and time.monotonic() < until_s:
        time.sleep(0.01)
    return seen()


# The client's end


class Cutting:
    """ASGI: breaks each answer off after *pieces* pieces, until it was asked *times* times."""

    def __init__(self, app: Any, pieces: int, times: int) -> None:
        self._app, self._pieces, self.left = app, pieces, times

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not self.left:
            return await self._app(scope, receive, send)
        self.left -= 1
        numbers = count()

        async def cut(message: Any) -> None:
            if message["type"] == "http.response.body" and next(numbers) >= self._pieces:
                raise ConnectionAbortedError("cut")
            await send(message)

        return await self._app(scope, receive, cut)


STORY = [
    {**RUNNING, "prints": {0: b"one\n", 1: b"uno\n"}},
    {"prints": {0: b"two\nthree\n"}},
    {**RETRY, "prints": {1: b"due\n"}},
    {"status": Status.RUNNING, "attempt": 2, "prints": {0: b"four\n"}},
    DONE,
]


@pytest.mark.parametrize("pieces", [1, 2, 3, 4])
def test_a_client_goes_on_where_its_connection_broke(tmp_path: Path, pieces: int) -> None:
    app = Cutting(create_app(Story(tmp_path, *STORY, ranks=2), Settings()), pieces, times=3)
    with app_at_port(app) as url, Client(url) as client:
        events = list(client.log_events(JOB_ID, rank="all"))
    assert app.left == 0
    assert (text_of(events), text_of(events, 1)) == ("one\ntwo\nthree\n", "uno\ndue\n")
    assert text_of(events, 0, 2) == "four\n"
    assert isinstance(events[-1], EndNotice)


async def test_the_async_client_follows_in_the_same_way(tmp_path: Path) -> None:
    app = Cutting(create_app(Story(tmp_path, *STORY, ranks=2), Settings()), 2, times=3)
    with app_at_port(app) as url:
        async with AsyncClient(url) as client:
            texts = [text async for text in client.logs(JOB_ID, follow=True)]
    assert "".join(texts) == "one\ntwo\nthree\nfour\n"


def test_a_server_that_speaks_otherwise_is_named() -> None:
    """A proxy's page of errors must not look like an empty log."""

    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]}
        )
        await send({"type": "http.response.body", "body": b"<html>"})

    with app_at_port(page) as url, pytest.raises(ServerUnreachable, match="something else came"):
        list(Client(url).logs(JOB_ID, follow=True))


class Wire(httpx.BaseTransport):
    """Answers each request with the next of *streams*, byte for byte in the pieces given."""

    def __init__(self, *streams: list[bytes], content_type: str = "text/event-stream") -> None:
        self._streams, self._content_type = iter(streams), content_type
        self.asked_after: list[str | None] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked_after.append(request.headers.get("last-event-id"))
        return httpx.Response(
            200, headers={"content-type": self._content_type}, content=iter(next(self._streams))
        )


def heard(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> list[LogEvent]:
    monkeypatch.setattr(flows, "_RECONNECT_S", 0.0)
    with Client("http://127.0.0.1:1") as client:
        monkeypatch.setattr(client, "_http", httpx.Client(transport=wire, base_url=client.url))
        return list(client.log_events(JOB_ID, rank="all"))


def an_event(event: LogEvent, number: int, end: str = "\n") -> str:
    kind = next(kind for kind, document in LOG_EVENTS.items() if type(event) is document)
    return f"event: {kind}{end}data: {event.model_dump_json()}{end}id: {number}{end}{end}"


LINES = LogLines(attempt=1, rank=0, text="a\rä\u2028😀\n", offset=0, next_offset=12)
END = EndNotice(over="job", status=Status.COMPLETED, attempt=1, reason=ReasonDocument(code="x", message="ü"))


@pytest.fixture(scope="module")
def module_patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_events_are_read_alike_however_the_bytes_are_cut(
    data: st.DataObject, module_patch: pytest.MonkeyPatch
) -> None:
    """TCP cuts where it likes, also within a character or between `\\r` and `\\n`; heartbeats are no events."""
    wire = (
        f"retry: 5\nid: 6\n\n: alive\r\n\r\n{an_event(LINES, 7)}: alive\r\revent: of later\rdata: ?\r\r"
        f"{an_event(LINES, 8, chr(13))}data\n\n{an_event(END, 9, chr(13) + chr(10))}"
    )
    raw = wire.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert heard(Wire(pieces), module_patch) == [LINES, LINES, END]


@settings(max_examples=50, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_stream_that_breaks_goes_on_after_the_last_event_that_was_whole(
    cut: int, module_patch: pytest.MonkeyPatch
) -> None:
    """Cut between the id and the end of its event, the event would be lost for ever."""
    head, first, second = "id: 1\n\n", an_event(LINES, 2), an_event(END, 3)
    raw = (head + first + second).encode()
    whole_until = {"1": len(head), "2": len((head + first).encode()), "3": len(raw)}
    newest = max((one for one, end in whole_until.items() if end <= cut), default=None)
    rest = {None: head + first + second, "1": first + second, "2": second}.get(newest, "")
    wire = Wire([raw[:cut]], [rest.encode()])
    assert heard(wire, module_patch) == [LINES, END]
    assert wire.asked_after == ([None, newest] if newest != "3" else [None])


def test_a_line_of_megabytes_in_small_pieces_is_one_event_in_little_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To copy what came before with each piece is quadratic: 8 MB in pieces of 1 kB took minutes."""
    huge = LINES.model_copy(update={"text": "ä" * 4_000_000})
    raw = (an_event(huge, 1) + an_event(END, 2)).encode()
    pieces = [raw[at : at + 1024] for at in range(0, len(raw), 1024)]
    began = process_time()
    assert heard(Wire(pieces), monkeypatch) == [huge, END]
    assert process_time() - began < 20


def test_events_are_utf_8_whatever_a_proxy_says(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(
        [(an_event(LINES, 1) + an_event(END, 2)).encode()], content_type="text/event-stream; charset=latin-1"
    )
    assert heard(wire, monkeypatch) == [LINES, END]


def test_httpx_is_told_to_wait_longer_than_the_heartbeat() -> None:
    from scheduler.client import calls

    timeout_s = calls.log_stream(JOB_ID, ranks=None, attempt=None, tail_bytes=None).timeout_s
    assert timeout_s is not None
    assert timeout_s > 2 * PollTiming().heartbeat_s
    assert httpx.Timeout(timeout_s).read == timeout_s
