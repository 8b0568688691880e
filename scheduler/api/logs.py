"""Logs: a part of one, and the events of a stream of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from scheduler.api.base import Document, DoubtNotice, ReasonDocument
from scheduler.core.model import Status


class LogLines(Document):
    """Part of what one rank printed: whole lines where there are any.  The data of the event `log`."""

    attempt: int
    rank: int
    text: str
    offset: int = Field(description="Bytes.")
    next_offset: int = Field(description="Bytes.")


class LogChunk(LogLines):
    """Part of one rank's log.  Ask again with `offset=next_offset` for what came after."""

    job_id: str
    ended: bool = Field(description="The attempt is over and this is the end of its log.")


class AttemptNotice(Document):
    """The data of the event `attempt`: one begins; or it is over and its logs were sent to their ends."""

    attempt: int
    state: Literal["began", "ended"]
    reason: ReasonDocument | None = Field(default=None, description="Why it ended.")


class WaitNotice(Document):
    """The data of the event `waiting`: no run to follow, and why."""

    status: Status
    reason: ReasonDocument
    queue_position: int | None = Field(default=None, description="1 is next; only while queued.")


class EndNotice(Document):
    """The data of the event `end`, the last one: why there is nothing more to follow."""

    over: Literal["job", "attempt", "stream"] = Field(
        description="`job`: it ended or is paused; `attempt`: the one that was asked for is over; `stream`: it failed."
    )
    status: Status | None = Field(default=None, description="The job's; null when it could not be asked.")
    attempt: int = Field(description="The last one that was followed; 0: none.")
    reason: ReasonDocument


LogEvent = LogLines | AttemptNotice | WaitNotice | DoubtNotice | EndNotice


LOG_EVENTS: dict[str, type[LogLines | AttemptNotice | WaitNotice | DoubtNotice | EndNotice]] = {
    "log": LogLines,
    "attempt": AttemptNotice,
    "waiting": WaitNotice,
    "doubt": DoubtNotice,
    "end": EndNotice,
}
"""What a stream of logs says: the name of each event, and what its data is."""


class RankLog(Document):
    """What was read of one rank's log."""

    rank: int
    text: str
    offset: int
    next_offset: int
    is_end: bool = Field(description="Nothing came after it when it was read.")


class LogView(Document):
    """How a job stands, and what came to the logs of one of its attempts.

    The logs were read after everything else was seen: once `is_over`, a log read to its end is whole.
    """

    job_id: str
    status: Status
    reason: ReasonDocument
    queue_position: int | None = None
    newest_attempt: int
    most_ranks: int = Field(description="Ranks that an attempt of it may have.")
    is_over: bool = Field(default=False, description="The processes of the attempt asked for are gone.")
    ending: ReasonDocument | None = Field(default=None, description="Why it is over.")
    logs: list[RankLog] = Field(default_factory=list[RankLog])
