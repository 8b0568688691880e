"""Server-sent events as they come off the wire: bytes in, events out, however the bytes are cut."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")
"""A `\\r` at the end of what came may be half of a `\\r\\n`."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    kind: str
    data: str
    id: str
    """The newest that the stream gave; empty when it gave none."""


@dataclass(slots=True)
class Decoder:
    """One stream's worth of state, by the rules of https://html.spec.whatwg.org/multipage/server-sent-events.html."""

    last_id: str = ""
    """Of the newest event, also of one without data.  Sent back as `Last-Event-ID`, the stream goes on after it."""
    _rest: bytes = b""
    _kind: str = ""
    _data: list[str] = field(default_factory=list[str])
    _id: str = ""

    def feed(self, piece: bytes) -> Iterator[ServerSentEvent]:
        """The events that *piece* completes."""
        *lines, self._rest = _LINE_END.split(self._rest + piece)
        for line in lines:
            event = self._take(line.decode(errors="replace"))
            if event:
                yield event

    def _take(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        return None  # `retry` is for browsers, and a line without a name is a comment

    def _dispatch(self) -> ServerSentEvent | None:
        kind, data = self._kind or "message", self._data
        self._kind, self._data, self.last_id = "", [], self._id
        return ServerSentEvent(kind, "\n".join(data), self._id) if data else None
