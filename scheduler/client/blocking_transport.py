"""Made from async_transport.py by `python -m scheduler.client.twin`; change that one."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import httpx
from httpx_sse import EventSource, ServerSentEvent

from scheduler.client.calls import Call, is_event_stream
from scheduler.client.connection import Connection
from scheduler.client.flows import Answer, Flow, Item, Pause, Reading, Step, following_step

T = TypeVar("T")


class Transport(Connection):
    """Carries out what `calls` and `flows` only describe."""

    http_client = httpx.Client

    def close(self) -> None:
        """Let the connections go.  Safe to repeat."""
        self._http.close()

    def call(self, call: Call[T]) -> T:
        """The answer to one call, asked again where that is safe.  Raises `SchedulerError`."""
        return self.run(self.flow(call))

    def run(self, flow: Flow[T]) -> T:
        """The result of *flow*, which says what to send and how long to pause."""
        answer: Answer = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as done:
                return done.value
            answer = self._do(step)

    def items(self, flow: Flow[None]) -> Generator[Any]:
        """What *flow* hands out, as it comes; whoever stops early closes this, and the connection with it."""
        step, reading = next(flow, None), None
        try:
            while step is not None:
                if isinstance(step, Item):
                    yield step.value
                    step = next(flow, None)
                else:
                    reading = step if isinstance(step, Reading) else reading
                    step = following_step(flow, self._do(step))
        finally:
            if reading:
                reading.response.close()

    def _do(self, step: Step) -> Answer:
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        assert isinstance(step, Call | Reading), step
        try:
            return self._send(step) if isinstance(step, Call) else self._read(step)
        except httpx.TransportError as error:
            return error

    def _send(self, call: Call[Any]) -> httpx.Response:
        request = self._http.build_request(**self.request(call))
        answer = self._http.send(request, stream=call.is_stream)
        self.has_met = True
        if not is_event_stream(answer):
            answer.read()
        return answer

    def _read(self, reading: Reading) -> ServerSentEvent | None:
        if reading.events is None:
            reading.response.encoding = (
                "utf-8"  # events have no other, whatever a proxy writes in the headers
            )
            reading.events = EventSource(reading.response).iter_sse()
        return next(reading.events, None)
