"""A job in the hands of an async program.  `blocking_handle` is made from this file by `python -m scheduler.client.twin`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, Unpack, overload

from scheduler.api.forecasts import EffectDocument, Explanation, WhatIfDocument
from scheduler.api.jobs import (
    AttemptPage,
    CheckpointPage,
    EventPage,
    ForceStartAnswer,
    JobDocument,
    ResultDocument,
)
from scheduler.api.logs import LogLines
from scheduler.api.metrics import MetricsDocument
from scheduler.client import calls
from scheduler.client.async_transport import AsyncTransport
from scheduler.client.connection import Watch, Where
from scheduler.client.job_view import AsyncView
from scheduler.client.outcome import could_not_cancel, result_of
from scheduler.client.progress_display import showing
from scheduler.client.tables import as_table
from scheduler.errors import NotAllowed, SchedulerError

if TYPE_CHECKING:
    from pandas import DataFrame  # pyright: ignore[reportMissingTypeStubs]  it has its types, not all of them


class AsyncJobHandle(AsyncView):
    """One job: ask how it stands, wait for it, steer it.

    As a context manager it keeps the job within the block: at the end of the block it waits until the job has
    ended; when the block is left by an exception, it cancels the job.
    """

    _transport: AsyncTransport

    async def status(self) -> JobDocument:
        """The job as it is now."""
        return self._seen(await self._transport.call(calls.status(self.id)))

    async def wait(
        self, timeout_s: float | None = None, *, progress: bool = False, **watch: Unpack[Watch]
    ) -> JobDocument:
        """Return once the job is completed, failed or cancelled; WaitTimedOut after *timeout_s*.

        With *progress*, a bar meanwhile: in a terminal, or below the cell of a notebook.
        """
        with showing(progress, self._seeing(watch), self._transport.page_of) as seen:
            return await self._transport.run(self._transport.wait_flow(self.id, timeout_s, seen))

    async def result(self, timeout_s: float | None = None) -> ResultDocument:
        """Wait, and return what the job left behind.

        Raises JobFailed with what the job raised and its traceback; JobNotCompleted when it was cancelled.
        """
        return result_of(await self.wait(timeout_s))

    async def logs(self, follow: bool = False, **where: Unpack[Where]) -> AsyncGenerator[str]:
        """The log of one rank, or of all, piece by piece; with *follow* until the job has ended, retries included."""
        pieces = self._transport.items(self._transport.log_flow(self.id, follow, where))
        async with aclosing(pieces) as events:
            async for event in events:
                if isinstance(event, LogLines) and event.text:
                    yield event.text

    @overload
    async def metrics(self, points: int = 1000, *, table: Literal[True]) -> DataFrame: ...
    @overload
    async def metrics(self, points: int = 1000, *, table: Literal[False]) -> MetricsDocument: ...
    @overload
    async def metrics(self, points: int = 1000, *, table: None = None) -> DataFrame | MetricsDocument: ...
    async def metrics(self, points: int = 1000, *, table: bool | None = None) -> DataFrame | MetricsDocument:
        """What the loop measured, thinned out to at most *points* rows: a DataFrame where pandas is installed.

        *table* True always gives the DataFrame, or says how to get pandas; False always gives the document.
        """
        return as_table(await self._transport.call(calls.metrics(self.id, points)), table)

    async def explain(self) -> Explanation:
        """Where the job stands and why, and what to do next."""
        return await self._transport.call(calls.explain(self.id))

    async def effect(
        self, action: str, checkpoint: str | None = None, preempt: bool = False
    ) -> EffectDocument:
        """What *action* (`resume`, `force-start`, ...) would do now.  Nothing is done."""
        return await self._transport.call(calls.effect(self.id, action, checkpoint, preempt))

    async def what_if(
        self, *, priority: int | None = None, front: bool = False, preempt: bool = False
    ) -> WhatIfDocument:
        """Who would start sooner or later, and whose run would be preempted, if one thing were changed.

        Give exactly one: another *priority*, *front* of its project's part of the queue, or *preempt*.  Nothing is done.
        """
        return await self._transport.call(
            calls.what_if(self.id, priority=priority, front=front, preempt=preempt)
        )

    async def cancel(self) -> JobDocument:
        """The job as it is now; it becomes `cancelled` once its processes are gone."""
        return self._seen(await self._transport.call(calls.cancel(self.id)))

    async def pause(self) -> JobDocument:
        """The job as it is now; it becomes `paused` once it has stopped at a checkpoint."""
        return self._seen(await self._transport.call(calls.pause(self.id)))

    async def resume(self, checkpoint: str | None = None) -> JobDocument:
        """Put it in the queue, to go on from its last checkpoint or the one given."""
        return self._seen(await self._transport.call(calls.resume(self.id, checkpoint)))

    async def restart(self) -> JobDocument:
        """Put it in the queue, to begin again from the beginning."""
        return self._seen(await self._transport.call(calls.restart(self.id)))

    async def preempt(self) -> JobDocument:
        """The job as it is now; it saves, gives its nodes back, and is queued again."""
        return self._seen(await self._transport.call(calls.preempt(self.id)))

    async def mark_failed(self) -> JobDocument:
        """Give it up while it waits."""
        return self._seen(await self._transport.call(calls.mark_failed(self.id)))

    async def force_start(self, preempt: bool = False) -> ForceStartAnswer:
        """Put a pending, queued, failed or cancelled job in the queue, from the beginning.

        Under the policy `fair` one that waits moves to the front of its project's part of the queue; with *preempt*
        other runs are preempted for it.
        """
        return await self._transport.call(calls.force_start(self.id, preempt))

    async def attempts(self) -> AttemptPage:
        """Its runs: when, where, why each ended, and what was lost."""
        return await self._transport.call(calls.attempts(self.id))

    async def checkpoints(self) -> CheckpointPage:
        """Its complete checkpoints, newest first."""
        return await self._transport.call(calls.checkpoints(self.id))

    async def events(self) -> EventPage:
        """Its history: each change, when, by whom and why."""
        return await self._transport.call(calls.events(self.id))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is None:
            await self.wait()
        else:
            await self._cancel_because_of(error)

    async def _cancel_because_of(self, error: BaseException) -> None:
        """What the block raised is what counts: that the job could not be cancelled becomes a note of it."""
        try:
            await self.cancel()
        except NotAllowed:
            return  # it has ended already
        except SchedulerError as refusal:
            error.add_note(could_not_cancel(self.id, refusal))
