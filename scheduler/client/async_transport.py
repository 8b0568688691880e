"""What sends and sleeps for clients and handles, by awaiting.

`blocking_transport` is made from this file by `python -m scheduler.client.twin`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

import httpx
from httpx_sse import EventSource, ServerSentEvent

from scheduler.client.calls import Call, is_event_stream
from scheduler.client.connection import Connection
from scheduler.client.flows import Answer, Flow, Item, Pause, Reading, Step, following_step

T = TypeVar("T")


class AsyncTransport(Connection):
    """Carries out what `calls` and `flows` only describe."""

    http_client = httpx.AsyncClient

    async def close(self) -> None:
        """Let the connections go.  Safe to repeat."""
        await self._http.aclose()

    async def call(self, call: Call[T]) -> T:
        """The answer to one call, asked again where that is safe.  Raises `SchedulerError`."""
        return await self.run(self.flow(call))

    async def run(self, flow: Flow[T]) -> T:
        """The result of *flow*, which says what to send and how long to pause."""
        answer: Answer = None
        while True:
            try:
                step = flow.send(answer)
            except StopIteration as done:
                return done.value
            answer = await self._do(step)

    async def items(self, flow: Flow[None]) -> AsyncGenerator[Any]:
        """What *flow* hands out, as it comes; whoever stops early closes this, and the connection with it."""
        step, reading = next(flow, None), None
        try:
            while step is not None:
                if isinstance(step, Item):
                    yield step.value
                    step = next(flow, None)
                else:
                    reading = step if isinstance(step, Reading) else reading
                    step = following_step(flow, await self._do(step))
        finally:
            if reading:
                await reading.response.aclose()

    async def _do(self, step: Step) -> Answer:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        assert isinstance(step, Call | Reading), step
        try:
            return await (self._send(step) if isinstance(step, Call) else self._read(step))
        except httpx.TransportError as error:
            return error

    async def _send(self, call: Call[Any]) -> httpx.Response:
        request = self._http.build_request(**self.request(call))
        answer = await self._http.send(request, stream=call.is_stream)
        self.has_met = True
        if not is_event_stream(answer):
            await answer.aread()
        return answer

    async def _read(self, reading: Reading) -> ServerSentEvent | None:
        if reading.events is None:
            reading.response.encoding = (
                "utf-8"  # events have no other, whatever a proxy writes in the headers
            )
            reading.events = EventSource(reading.response).aiter_sse()
        return await anext(reading.events, None)
