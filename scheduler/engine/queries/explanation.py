"""Where a job stands and why, in one sentence, and what a person may do next, most useful first."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from scheduler.api.forecasts import Explanation, Forecast, NextStep
from scheduler.api.jobs import JobDocument, Liveness
from scheduler.api.serialize import SILENT_AFTER_S
from scheduler.core.commands import JobAction
from scheduler.core.durations import span
from scheduler.core.forecast import about
from scheduler.core.lifecycle import in_words
from scheduler.core.model import Job, Status
from scheduler.engine.queries.action_preview import ActionPreviews
from scheduler.engine.queries.forecaster import Forecaster
from scheduler.engine.queries.job_view import JobViews
from scheduler.engine.queries.run_lengths import RunLengths
from scheduler.ports import Clock

_TO_ANSWER = timedelta(seconds=SILENT_AFTER_S)
"""A run that was started so shortly before is not doubted for its silence."""
_WITHDRAWN = "withdraw it; it can be restarted later"


class Explainer:
    """Reads; changes nothing.  Each step that is offered is one that would be allowed now."""

    def __init__(
        self,
        views: JobViews,
        forecaster: Forecaster,
        lengths: RunLengths,
        previews: ActionPreviews,
        clock: Clock,
    ) -> None:
        self._views, self._forecaster, self._lengths = views, forecaster, lengths
        self._previews, self._clock = previews, clock

    async def of(self, job: Job) -> Explanation:
        seen = self._views.document(job)
        forecast = await self._forecaster.of(job) if job.status is Status.QUEUED else None
        return Explanation(
            job_id=job.id,
            status=job.status,
            message=self._message(job, seen, forecast),
            reason=seen.reason,
            forecast=forecast,
            next_steps=list(self._next_steps(job, seen)),
        )

    def _message(self, job: Job, seen: JobDocument, forecast: Forecast | None) -> str:
        why = seen.reason.message
        match job.status:
            case Status.PENDING:
                return (
                    f"not accepted into the queue yet, since {_age(job.created_at, self._clock.now())}: {why}"
                )
            case Status.QUEUED:
                return _of_waiting(job, forecast, why)
            case Status.RUNNING:
                return self._of_running(job, seen)
            case Status.PAUSED:
                return f"{why}; it holds nothing, and {_goes_on(job)} when it is resumed"
            case Status.COMPLETED:
                return f"completed{_took(job)}: {why}{_output(seen)}"
            case Status.FAILED | Status.CANCELLED:
                kept = f"; checkpoint {in_words(job.saved)} is there to go on from" if job.saved else ""
                return f"{_never_ran(job)}{why}{kept}"

    def _of_running(self, job: Job, seen: JobDocument) -> str:
        why = seen.reason.message
        if seen.liveness is not Liveness.ALIVE:
            is_new = job.admitted_at is not None and self._clock.now() - job.admitted_at < _TO_ANSWER
            return f"{why}; {seen.evidence}" if is_new else f"believed to run: {seen.evidence}"
        if job.stop:
            return why
        left_s = self._lengths.left_s(job, self._clock.now())
        return f"{why}; {about(left_s)} to go" if left_s is not None else why

    def _next_steps(self, job: Job, seen: JobDocument) -> Iterator[NextStep]:
        for action, why in _candidates(job, seen):
            if isinstance(action, JobAction) and not self._previews.allows(job, action):
                continue
            yield NextStep(action=action, why=why, command=_command(job, action))


def _of_waiting(job: Job, forecast: Forecast | None, why: str) -> str:
    place = forecast.message if forecast else "in the queue"
    if job.held or not forecast or forecast.starts_in_s == 0:
        return f"{place} ({why})" if job.held else place
    return place if why in place else f"{place} ({why})"


def _goes_on(job: Job) -> str:
    return f"goes on from checkpoint {in_words(job.saved)}" if job.saved else "begins at the beginning"


def _anew(job: Job) -> str:
    return f"begin again at the beginning{'; what it has saved stays' if job.saved else ''}"


def _never_ran(job: Job) -> str:
    return "" if job.attempt else "it never ran: "


def _took(job: Job) -> str:
    if job.finished_at is None or job.started_at is None:
        return ""
    return f" in {span((job.finished_at - job.started_at).total_seconds())}"


def _output(seen: JobDocument) -> str:
    folder = seen.result.output_dir if seen.result else None
    return f"; its output is in {folder}" if folder else ""


def _age(since: datetime, now: datetime) -> str:
    return span((now - since).total_seconds())


def _candidates(job: Job, seen: JobDocument) -> Iterator[tuple[JobAction | str, str]]:
    """What a person might want, most useful first; some of it may not be allowed."""
    match job.status:
        case Status.PENDING:
            yield JobAction.FORCE_START, "take it into the queue now"
            yield JobAction.FAIL, "give it up; it can be force-started later"
            yield JobAction.CANCEL, _WITHDRAWN
        case Status.QUEUED:
            yield from _while_it_waits(job, seen)
        case Status.RUNNING:
            yield from _while_it_runs(job, seen)
        case Status.PAUSED:
            yield JobAction.RESUME, f"it {_goes_on(job)}"
            yield JobAction.RESTART, _anew(job)
            yield JobAction.CANCEL, _WITHDRAWN
        case Status.FAILED:
            yield from _after_a_failure(job, seen)
        case Status.CANCELLED:
            if job.saved:
                yield JobAction.RESUME, f"it {_goes_on(job)}"
            yield JobAction.RESTART, _anew(job)
        case Status.COMPLETED:
            yield "status", "see its output and its last numbers"
            yield "logs", "see what it printed"


def _while_it_waits(job: Job, seen: JobDocument) -> Iterator[tuple[JobAction | str, str]]:
    if job.held:
        yield JobAction.RESUME, f"let it start when it is its turn; it {_goes_on(job)}"
    if seen.reason.code == "does_not_fit_here":
        yield (
            JobAction.CANCEL,
            "it can never start on the nodes that are here; submit it again with a smaller gang",
        )
        yield "health", "see which nodes there are, and what each has"
        return
    if seen.reason.code == "retry_pause":
        yield "logs", "see why the last attempt ended"
        yield JobAction.FORCE_START, "end the pause before its next try"
    if not job.held:
        yield "wait", "it starts by itself; this returns when it has ended"
        yield JobAction.PAUSE, "keep its place and let others go first"
    yield JobAction.CANCEL, _WITHDRAWN


def _while_it_runs(job: Job, seen: JobDocument) -> Iterator[tuple[JobAction | str, str]]:
    if job.stop:
        yield "wait", "it is being stopped; this returns when it has ended"
        yield "logs", "see what it does meanwhile"
        return
    yield "logs", "see what it prints"
    if seen.reason.code == "suspect" or seen.liveness is not Liveness.ALIVE:
        yield JobAction.PREEMPT, "let it begin anew from its last checkpoint, on nodes that answer"
    yield JobAction.PAUSE, "let it save, and hold nothing until it is resumed"
    yield JobAction.CANCEL, "end it at once, without saving"


def _after_a_failure(job: Job, seen: JobDocument) -> Iterator[tuple[JobAction | str, str]]:
    if not job.attempt:
        yield JobAction.FORCE_START, "queue it again, once what is wrong has been corrected"
        yield "events", "see what happened to it"
        return
    if job.saved:
        yield JobAction.RESUME, f"it {_goes_on(job)}, once what is wrong has been corrected"
    yield JobAction.RESTART, _anew(job)
    yield "logs", "see what it printed before it ended"


def _command(job: Job, action: JobAction | str) -> str:
    match action:
        case "logs":
            follow = "-f " if job.status is Status.RUNNING else ""
            return f"scheduler logs {follow}{job.id}"
        case "health":
            return "scheduler health"
        case JobAction.RESUME if job.saved and job.status.is_terminal:
            return f"scheduler resume {job.id} --checkpoint {job.saved.checkpoint}"
        case _:
            return f"scheduler {action} {job.id}"
