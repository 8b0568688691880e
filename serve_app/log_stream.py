"""The logs of a job as server-sent events: followed live, resumed at any event, ended with the reason."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated

from fastapi import Header
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

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
from scheduler.api.redaction import retold
from scheduler.api.scheduler_api import SchedulerApi
from scheduler.core.model import Status
from scheduler.errors import SchedulerError
from serve_app.problems import invalid, shown
from serve_app.streams import EventStream

MAX_RANKS = 256
RETRY_MS = 1000
_MAX_READ_BYTES, _MAX_RANK_BYTES, _MIN_RANK_BYTES = 1_000_000, 65_536, 4_096
_PARTIAL_LINE_S = 1.0
"""So long the beginning of a line waits for its end: a prompt or a progress bar has none."""
_KIND_OF = {document: kind for kind, document in LOG_EVENTS.items()}
_RANKS = r"[0-9]{1,4}(,[0-9]{1,4}){0,255}"
_POSITION = r"[0-9]{1,9}\.(open|over|end)(\.[0-9]{1,4}-[0-9]{1,15}){0,256}"


class Stage(StrEnum):
    """How much of an attempt was sent."""

    OPEN = "open"
    """It was said to have begun; its logs follow."""
    OVER = "over"
    """It was said to be over, after the last of its logs."""
    END = "end"
    """And that there is nothing more to follow."""


@dataclass(frozen=True, slots=True)
class LogPosition:
    """A place between two events: what came before it was sent.  As text, the id of the event before it."""

    attempt: int
    stage: Stage
    offsets: Mapping[int, int] = field(default_factory=dict[int, int])
    """Of each followed rank: the bytes of its log that were sent; only while the attempt is open."""

    def __str__(self) -> str:
        offsets = (f".{rank}-{offset}" for rank, offset in self.offsets.items())
        return f"{self.attempt}.{self.stage}{''.join(offsets)}"

    @classmethod
    def of(cls, text: str) -> LogPosition:
        """Raises InvalidRequest."""
        if not re.fullmatch(_POSITION, text):
            raise invalid("from", f"is {shown(text)}; send the id of an event of this stream, as it was")
        attempt, stage, *offsets = text.split(".")
        pairs = (one.split("-") for one in offsets)
        return cls(int(attempt), Stage(stage), {int(rank): int(offset) for rank, offset in pairs})


class StreamQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rank: str | None = Field(
        None,
        description="Only these, separated by commas; all ranks when not given.",
        examples=["0", "0,3"],
        json_schema_extra={"pattern": f"^{_RANKS}$"},
    )
    attempt: int | None = Field(
        None,
        ge=1,
        le=2**31 - 1,
        description="Only this run.  When not given: the newest, and those after it.",
    )
    offset: int | None = Field(None, ge=0, le=2**53, description="Bytes of each rank's log to leave out.")
    tail_bytes: int | None = Field(
        None, ge=1, le=_MAX_RANK_BYTES, description="Begin at most so many bytes before the end, at a line."
    )
    position: str | None = Field(
        None,
        alias="from",
        description="The id of an event: go on after it.  The header `Last-Event-ID` wins.",
        json_schema_extra={"pattern": f"^{_POSITION}$"},
    )


LastEventId = Annotated[
    str | None,
    Header(
        max_length=5000,
        description="As browsers send it when they connect again: go on after that event.",
        json_schema_extra={"pattern": f"^({_POSITION})?$"},
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PollTiming:
    """How often the registry is asked: soon after it had something, then less and less."""

    shortest_s: float = 0.2
    longest_s: float = 2.0
    growth: float = 1.5
    heartbeat_s: float = 15.0
    """Something is sent at least so often, so that no proxy takes the connection for dead."""


@dataclass(slots=True, kw_only=True)
class Follower:
    """Turns looks at a job into events, each with the position after it.  Knows no clock and asks nobody."""

    position: LogPosition
    ranks: tuple[int, ...]
    only: int | None = None
    """The one attempt to follow; None: all that come."""
    starts: Mapping[int, int] = field(default_factory=dict[int, int])
    """Where the logs of the first attempt begin; without it, and in those after it: at their beginnings."""
    _waits: WaitNotice | None = None
    _held: dict[int, tuple[int, float]] = field(default_factory=dict[int, tuple[int, float]])
    """For a rank whose newest line has no end yet: where that begins, and since when it waits."""

    @property
    def has_ended(self) -> bool:
        return self.position.stage is Stage.END

    def take(self, view: LogView, now_s: float) -> Iterator[LogEvent]:
        """What *view* adds, a look at `position`; whoever iterates sees `position` move with each event."""
        if self.position.stage is Stage.OPEN:
            yield from self._lines(view, now_s)
        elif self._may_begin(view):
            offsets = self.starts or dict.fromkeys(self.ranks, 0)
            self.position = LogPosition(self.position.attempt + 1, Stage.OPEN, offsets)
            self.starts, self._waits = {}, None
            yield AttemptNotice(attempt=self.position.attempt, state="began", reason=None)
        elif end := self._end(view):
            yield self._ended(end)
        else:
            yield from self._waiting(view)

    def fail(self, error: SchedulerError) -> EndNotice:
        reason = ReasonDocument(code=error.code, message=error.message, detail=None)
        return self._ended(
            EndNotice(over="stream", status=None, attempt=self.position.attempt, reason=reason)
        )

    def _lines(self, view: LogView, now_s: float) -> Iterator[LogEvent]:
        attempt, read_whole = self.position.attempt, view.is_over
        for log in view.logs:
            text, end = self._ready(log, view.is_over, now_s)
            if text:
                self._held.pop(log.rank, None)
                offsets = {**self.position.offsets, log.rank: end}
                self.position = replace(self.position, offsets=offsets)
                yield LogLines(attempt=attempt, rank=log.rank, text=text, offset=log.offset, next_offset=end)
            read_whole = read_whole and log.is_end
        if read_whole:
            self.position = LogPosition(attempt, Stage.OVER)
            self._held.clear()
            yield AttemptNotice(attempt=attempt, state="ended", reason=view.ending)

    def _ready(self, log: RankLog, is_over: bool, now_s: float) -> tuple[str, int]:
        """What of *log* can be sent now, and the offset after it: whole lines, as long as more may come."""
        lines = log.text[: log.text.rfind("\n") + 1]
        is_text = "\ufffd" not in log.text
        if not log.text or (is_over and log.is_end):
            return log.text, log.next_offset
        if lines and is_text:  # else the bytes of a part cannot be counted
            return lines, log.offset + len(lines.encode())
        if lines or not log.is_end:
            return log.text, log.next_offset
        offset, since_s = self._held.get(log.rank, (-1, now_s))
        if offset != log.offset:
            self._held[log.rank] = (log.offset, now_s)
            return "", log.offset
        is_torn = not is_text and log.next_offset - log.offset < 4
        return (
            ("", log.offset) if is_torn or now_s - since_s < _PARTIAL_LINE_S else (log.text, log.next_offset)
        )

    def _may_begin(self, view: LogView) -> bool:
        following = self.position.attempt + 1
        return following <= min(view.newest_attempt, self.only or following)

    def _end(self, view: LogView) -> EndNotice | None:
        attempt = self.position.attempt
        if self.only is not None and attempt >= self.only:
            reason = view.ending or view.reason
            return EndNotice(over="attempt", status=view.status, attempt=attempt, reason=reason)
        if is_at_rest(view):
            return EndNotice(over="job", status=view.status, attempt=attempt, reason=view.reason)
        return None

    def _ended(self, end: EndNotice) -> EndNotice:
        self.position = replace(self.position, stage=Stage.END, offsets={})
        return end

    def _waiting(self, view: LogView) -> Iterator[WaitNotice]:
        notice = WaitNotice(status=view.status, reason=view.reason, queue_position=view.queue_position)
        if notice != self._waits:
            self._waits = notice
            yield notice


class LogStream:
    """One client's stream.  Asks the registry, one call for all ranks, and never two at a time."""

    def __init__(
        self,
        registry: SchedulerApi,
        job_id: str,
        follower: Follower,
        pace: PollTiming,
        now_s: Callable[[], float] = time.monotonic,
        show: Callable[[str], str] | None = None,
    ) -> None:
        self._show = show
        self._registry, self._job_id, self._follower = registry, job_id, follower
        self._pace, self._now_s = pace, now_s
        self._pause_s, self._in_doubt = 0.0, False
        most = _MAX_READ_BYTES // max(1, len(follower.ranks))
        self._limit = max(_MIN_RANK_BYTES, min(most, _MAX_RANK_BYTES))

    async def body(self) -> AsyncIterator[bytes]:
        """The stream as bytes, with heartbeats.  Closing it ends the work."""
        follower = self._follower
        yield format_sse_event(retry=RETRY_MS, id=None if follower.starts else str(follower.position))
        turn = asyncio.create_task(self._turn())
        try:
            while True:
                await asyncio.wait({turn}, timeout=self._pace.heartbeat_s)
                if not turn.done():
                    yield KEEPALIVE_COMMENT
                    continue
                for event in turn.result():
                    yield event
                if follower.has_ended:
                    return
                turn = asyncio.create_task(self._turn())
        finally:
            turn.cancel()

    async def _turn(self) -> list[bytes]:
        """Wait a little, look once, and say what is new."""
        await asyncio.sleep(self._pause_s)
        at = self._follower.position
        attempt = at.attempt if at.stage is Stage.OPEN else self._follower.only or 0
        try:
            view = await self._registry.log_view(self._job_id, attempt, dict(at.offsets), self._limit)
        except SchedulerError as error:
            return [self._encoded(event) for event in self._failed(error)]
        events = [self._encoded(event) for event in self._taken(view)]
        has_more = any(not log.is_end for log in view.logs) or self._follower.position.stage != at.stage
        if has_more:
            self._pause_s = 0.0
        elif events:
            self._pause_s = self._pace.shortest_s
        else:
            self._slow_down()
        return events

    def _taken(self, view: LogView) -> Iterator[LogEvent]:
        if self._in_doubt:
            self._in_doubt = False
            yield DoubtNotice(message=None)
        yield from self._follower.take(view, self._now_s())

    def _failed(self, error: SchedulerError) -> Iterator[LogEvent]:
        if error.http_status != 503:
            yield self._follower.fail(error)
        elif not self._in_doubt:
            self._in_doubt = True
            yield DoubtNotice(message=error.message)
        self._slow_down()

    def _slow_down(self) -> None:
        grown_s = max(self._pause_s, self._pace.shortest_s) * self._pace.growth
        self._pause_s = min(grown_s, self._pace.longest_s)

    def _encoded(self, event: LogEvent) -> bytes:
        """With the position after *event* as its id: to be called before the next one is made."""
        event = retold(event, self._show) if self._show else event
        data = json.dumps(event.model_dump(mode="json"))  # ASCII: nothing in it looks like an end of line
        return format_sse_event(data_str=data, event=_KIND_OF[type(event)], id=str(self._follower.position))


async def answer(
    registry: SchedulerApi,
    job_id: str,
    query: StreamQuery,
    last_event_id: str | None = None,
    pace: PollTiming | None = None,
    show: Callable[[str], str] | None = None,
) -> Response:
    """The stream, each text as *show* has it; 204, which tells a browser to ask no more, when all of it was sent before.

    Raises JobNotFound, InvalidRequest and RegistryUnavailable before it begins.
    """
    view = await registry.log_view(job_id, 0, {}, 1)
    follower = await _follower(registry, view, query, last_event_id or query.position)
    if follower.has_ended:
        if query.attempt or (is_at_rest(view) and view.newest_attempt <= follower.position.attempt):
            return Response(status_code=204)
        follower.position = replace(follower.position, stage=Stage.OVER)
    stream = LogStream(registry, job_id, follower, pace or PollTiming(), show=show)
    return EventStream(stream.body())


def is_at_rest(view: LogView) -> bool:
    """Nothing more runs, unless a person asks for it."""
    return view.status.is_terminal or view.status is Status.PAUSED


async def _follower(
    registry: SchedulerApi, view: LogView, query: StreamQuery, position: str | None
) -> Follower:
    ranks, newest = _ranks(query.rank, view.most_ranks), view.newest_attempt
    if query.attempt and query.attempt > newest + (not is_at_rest(view)):
        raise invalid("attempt", f"is {query.attempt}; the job has had {newest}")
    if query.offset is not None and query.tail_bytes is not None:
        raise invalid("tail_bytes", "is given beside offset; give one of them")
    if position:
        return Follower(
            position=_known(LogPosition.of(position), ranks, view, query), ranks=ranks, only=query.attempt
        )
    first = query.attempt or newest
    starts = await _starts(registry, view.job_id, first, ranks, query) if 1 <= first <= newest else {}
    before = LogPosition(max(0, first - 1), Stage.OVER)
    return Follower(position=before, ranks=ranks, only=query.attempt, starts=starts)


async def _starts(
    registry: SchedulerApi, job_id: str, attempt: int, ranks: tuple[int, ...], query: StreamQuery
) -> dict[int, int]:
    if query.offset is not None:
        return dict.fromkeys(ranks, query.offset)
    if query.tail_bytes is None:
        return {}
    back = query.tail_bytes + 1  # the byte before tells whether the tail begins with a line
    view = await registry.log_view(job_id, attempt, dict.fromkeys(ranks, -back), min(back, _MIN_RANK_BYTES))
    return {log.rank: _first_line(log) for log in view.logs}


def _first_line(log: RankLog) -> int:
    """The offset of the first line that begins within *log*; where none does, of its second character."""
    if log.offset == 0 or not log.text:
        return log.next_offset if log.offset else 0
    cut = min(3, len(log.text) - len(log.text.lstrip("\ufffd")))  # bytes of a character that began before
    line, newline, more = log.text[cut:].partition("\n")
    if newline and "\ufffd" not in line and (more or not log.is_end):
        return log.offset + cut + len(line.encode()) + 1
    return log.offset + (cut or len(log.text[0].encode()))


def _ranks(asked: str | None, most: int) -> tuple[int, ...]:
    if asked is None:
        if most > MAX_RANKS:
            raise invalid("rank", f"is not given, and the job has {most}; choose {MAX_RANKS} at most")
        return tuple(range(most))
    if not re.fullmatch(_RANKS, asked):
        raise invalid("rank", f"is {shown(asked)}; give whole numbers, separated by commas")
    ranks = tuple(sorted({int(rank) for rank in asked.split(",")}))
    if ranks[-1] >= most:
        raise invalid("rank", f"is {ranks[-1]}; the job has {most}, and the first is 0")
    return ranks


def _known(position: LogPosition, ranks: tuple[int, ...], view: LogView, query: StreamQuery) -> LogPosition:
    if position.attempt > min(view.newest_attempt, query.attempt or view.newest_attempt):
        raise invalid("from", f"is after attempt {position.attempt}, which is not there to be followed")
    if position.stage is Stage.OPEN and tuple(position.offsets) != ranks:
        raise invalid("from", "is of a stream of other ranks; give the same `rank` as then")
    return position
