"""Made from async_handle.py by `python -m scheduler.client.twin`; change that one."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
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
from scheduler.client.blocking_transport import Transport
from scheduler.client.connection import Watch, Where
from scheduler.client.job_view import View
from scheduler.client.outcome import could_not_cancel, result_of
from scheduler.client.progress_display import showing
from scheduler.client.tables import as_table
from scheduler.errors import NotAllowed, SchedulerError

if TYPE_CHECKING:
    from pandas import DataFrame  # pyright: ignore[reportMissingTypeStubs]  it has its types, not all of them


class JobHandle(View):
    """One job: ask how it stands, wait for it, steer it.

    As a context manager it keeps the job within the block: at the end of the block it waits until the job has
    ended; when the block is left by an exception, it cancels the job.
    """

    _transport: Transport

    def status(self) -> JobDocument:
        """The job as it is now."""
        return self._seen(self._transport.call(calls.status(self.id)))

    def wait(
        self, timeout_s: float | None = None, *, progress: bool = False, **watch: Unpack[Watch]
    ) -> JobDocument:
        """Return once the job is completed, failed or cancelled; WaitTimedOut after *timeout_s*.

        With *progress*, a bar meanwhile: in a terminal, or below the cell of a notebook.
        """
        with showing(progress, self._seeing(watch), self._transport.page_of) as seen:
            return self._transport.run(self._transport.wait_flow(self.id, timeout_s, seen))

    def result(self, timeout_s: float | None = None) -> ResultDocument:
        """Wait, and return what the job left behind.

        Raises JobFailed with what the job raised and its traceback; JobNotCompleted when it was cancelled.
        """
        return result_of(self.wait(timeout_s))

    def logs(self, follow: bool = False, **where: Unpack[Where]) -> Generator[str]:
        """The log of one rank, or of all, piece by piece; with *follow* until the job has ended, retries included."""
        pieces = self._transport.items(self._transport.log_flow(self.id, follow, where))
        with closing(pieces) as events:
            for event in events:
                if isinstance(event, LogLines) and event.text:
                    yield event.text

    @overload
    def metrics(self, points: int = 1000, *, table: Literal[True]) -> DataFrame: ...
    @overload
    def metrics(self, points: int = 1000, *, table: Literal[False]) -> MetricsDocument: ...
    @overload
    def metrics(self, points: int = 1000, *, table: None = None) -> DataFrame | MetricsDocument: ...
    def metrics(self, points: int = 1000, *, table: bool | None = None) -> DataFrame | MetricsDocument:
        """What the loop measured, thinned out to at most *points* rows: a DataFrame where pandas is installed.

        *table* True always gives the DataFrame, or says how to get pandas; False always gives the document.
        """
        return as_table(self._transport.call(calls.metrics(self.id, points)), table)

    def explain(self) -> Explanation:
        """Where the job stands and why, and what to do next."""
        return self._transport.call(calls.explain(self.id))

    def effect(self, action: str, checkpoint: str | None = None, preempt: bool = False) -> EffectDocument:
        """What *action* (`resume`, `force-start`, ...) would do now.  Nothing is done."""
        return self._transport.call(calls.effect(self.id, action, checkpoint, preempt))

    def what_if(
        self, *, priority: int | None = None, front: bool = False, preempt: bool = False
    ) -> WhatIfDocument:
        """Who would start sooner or later, and whose run would be preempted, if one thing were changed.

        Give exactly one: another *priority*, *front* of its project's part of the queue, or *preempt*.  Nothing is done.
        """
        return self._transport.call(calls.what_if(self.id, priority=priority, front=front, preempt=preempt))

    def cancel(self) -> JobDocument:
        """The job as it is now; it becomes `cancelled` once its processes are gone."""
        return self._seen(self._transport.call(calls.cancel(self.id)))

    def pause(self) -> JobDocument:
        """The job as it is now; it becomes `paused` once it has stopped at a checkpoint."""
        return self._seen(self._transport.call(calls.pause(self.id)))

    def resume(self, checkpoint: str | None = None) -> JobDocument:
        """Put it in the queue, to go on from its last checkpoint or the one given."""
        return self._seen(self._transport.call(calls.resume(self.id, checkpoint)))

    def restart(self) -> JobDocument:
        """Put it in the queue, to begin again from the beginning."""
        return self._seen(self._transport.call(calls.restart(self.id)))

    def preempt(self) -> JobDocument:
        """The job as it is now; it saves, gives its nodes back, and is queued again."""
        return self._seen(self._transport.call(calls.preempt(self.id)))

    def mark_failed(self) -> JobDocument:
        """Give it up while it waits."""
        return self._seen(self._transport.call(calls.mark_failed(self.id)))

    def force_start(self, preempt: bool = False) -> ForceStartAnswer:
        """Put a pending, queued, failed or cancelled job in the queue, from the beginning.

        Under the policy `fair` one that waits moves to the front of its project's part of the queue; with *preempt*
        other runs are preempted for it.
        """
        return self._transport.call(calls.force_start(self.id, preempt))

    def attempts(self) -> AttemptPage:
        """Its runs: when, where, why each ended, and what was lost."""
        return self._transport.call(calls.attempts(self.id))

    def checkpoints(self) -> CheckpointPage:
        """Its complete checkpoints, newest first."""
        return self._transport.call(calls.checkpoints(self.id))

    def events(self) -> EventPage:
        """Its history: each change, when, by whom and why."""
        return self._transport.call(calls.events(self.id))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
        else:
            self._cancel_because_of(error)

    def _cancel_because_of(self, error: BaseException) -> None:
        """What the block raised is what counts: that the job could not be cancelled becomes a note of it."""
        try:
            self.cancel()
        except NotAllowed:
            return  # it has ended already
        except SchedulerError as refusal:
            error.add_note(could_not_cancel(self.id, refusal))
