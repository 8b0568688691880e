"""What a person may ask of a job: one table, and what each action is to the life of a job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from scheduler.core.codec import UNREADABLE_LOOP
from scheduler.core.lifecycle import AskStop, Event, ForceStart, GiveUp, Restart, Resume
from scheduler.core.model import Job, Pushed, Reason, Saved, Status, StopKind
from scheduler.errors import InvalidRequest, NotAllowed


class JobAction(StrEnum):
    """As in the paths of the API."""

    CANCEL = "cancel"
    PAUSE = "pause"
    PREEMPT = "preempt"
    RESUME = "resume"
    RESTART = "restart"
    FORCE_START = "force-start"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRule:
    """Where an action is allowed, and its words; the API, the pages, the command line and the database read it here."""

    acts_in: frozenset[Status]
    """The statuses of a job that it may change."""
    settled_in: Status | None = None
    """There it has been done already: allowed, and nothing changes."""
    asks_in: frozenset[Status] = frozenset()
    """There a terminal asks first: it ends something.  Not empty: the pages show it as dangerous."""
    stop: StopKind | None = None
    """How a run is stopped, where the action is a stop."""
    queues: bool = False
    """It puts the job into the queue, whose spec is checked again first."""
    takes_checkpoint: bool = False
    takes_preempt: bool = False
    """Runs may be preempted for the job, where a person asks for that too."""

    method: str
    """Its name where a name must be an identifier: the operation of the API, and the method of the clients."""
    in_database: str | None
    """As a front end writes it into `requested_action`; None: it cannot be asked for there."""

    done: str
    """After `it is`."""
    title: str
    promise: str
    """Both: as the description of the API has it."""
    help: str
    """Of the command."""
    button: str
    question: str
    """Before the name of a job, or the number of jobs."""
    is_for_many: bool = True
    """Whether the list of jobs offers it for all that are marked."""

    @property
    def allowed(self) -> frozenset[Status]:
        """Everywhere else it is refused."""
        return self.acts_in | {self.settled_in} if self.settled_in else self.acts_in

    @property
    def is_dangerous(self) -> bool:
        return bool(self.asks_in)


_NOT_RUNNING = frozenset({Status.QUEUED, Status.PAUSED, Status.FAILED, Status.CANCELLED})

ACTIONS: Mapping[JobAction, ActionRule] = {
    JobAction.CANCEL: ActionRule(
        acts_in=frozenset({Status.PENDING, Status.QUEUED, Status.RUNNING, Status.PAUSED}),
        settled_in=Status.CANCELLED,
        asks_in=frozenset({Status.RUNNING}),
        stop=StopKind.CANCEL,
        method="cancel",
        in_database="cancel",
        done="cancelled",
        title="Cancel a job",
        promise="A running job is `cancelled` once its processes are gone.",
        help="Cancel a job; a running one is `cancelled` once its processes are gone.  Asks first, on a terminal.",
        button="Cancel",
        question="Cancel",
    ),
    JobAction.PAUSE: ActionRule(
        acts_in=frozenset({Status.QUEUED, Status.RUNNING}),
        settled_in=Status.PAUSED,
        stop=StopKind.PAUSE,
        method="pause",
        in_database="pause",
        done="paused",
        title="Pause a running job, or hold a queued one",
        promise=(
            "A running job is `paused` once it has saved and its processes are gone.  A queued one keeps its place\n"
            "and does not start until it is resumed."
        ),
        help="Pause a running job: it saves, and holds nothing once it is `paused`.  A queued one is held in the queue.",
        button="Pause",
        question="Pause",
    ),
    JobAction.PREEMPT: ActionRule(
        acts_in=frozenset({Status.RUNNING}),
        settled_in=Status.QUEUED,
        stop=StopKind.PREEMPT,
        method="preempt",
        in_database="preempt",
        done="preempted",
        title="Let a running job give way",
        promise="It saves, gives its nodes back, and is `queued` again; it goes on when it is its turn.",
        help="Preempt a running job: it saves, gives its nodes back, and waits for its turn again.",
        button="Preempt",
        question="Preempt",
        is_for_many=False,
    ),
    JobAction.RESUME: ActionRule(
        acts_in=_NOT_RUNNING,
        takes_checkpoint=True,
        queues=True,
        method="resume",
        in_database="resume",
        done="resumed",
        title="Let a paused, failed or cancelled job go on",
        promise="Back in the line, to go on from its last checkpoint, or from the one given.",
        help="Let a job that is paused, failed, cancelled or held go on from its last checkpoint, or one of your choice.",
        button="Resume",
        question="Resume",
    ),
    JobAction.RESTART: ActionRule(
        acts_in=_NOT_RUNNING,
        queues=True,
        method="restart",
        in_database="restart",
        done="restarted",
        title="Begin a paused, failed, cancelled or queued job again from the beginning",
        promise="Its checkpoints stay, and can be chosen later.",
        help="Begin a paused, failed, cancelled or queued job again from the beginning; its checkpoints stay.",
        button="Restart",
        question="Restart",
        is_for_many=False,
    ),
    JobAction.FORCE_START: ActionRule(
        acts_in=frozenset({Status.PENDING, Status.QUEUED, Status.FAILED, Status.CANCELLED}),
        queues=True,
        takes_preempt=True,
        method="force_start",
        in_database="force_start",
        done="force-started",
        title="Queue a pending, queued, failed or cancelled job",
        promise=(
            "A failed or cancelled job starts from the beginning.  A queued one is never queued twice: under the policy\n"
            "`fair` it moves to the front of its project's part of the queue."
        ),
        help=(
            "Queue a job that is pending, queued, failed or cancelled, from the beginning.  Under the policy fair one that "
            "waits moves to the front of its project's."
        ),
        button="Start Job Now",
        question="Start",
    ),
    JobAction.FAIL: ActionRule(
        acts_in=frozenset({Status.PENDING, Status.QUEUED}),
        settled_in=Status.FAILED,
        asks_in=frozenset({Status.PENDING, Status.QUEUED}),
        method="mark_failed",
        in_database=None,
        done="marked as failed",
        title="Mark a job as failed",
        promise="Only a job that waits; a running one is cancelled instead.",
        help="Mark a job as failed that is pending or queued; it can be force-started later.  Asks first, on a terminal.",
        button="Mark as Failed",
        question="Mark as failed:",
    ),
}
"""A test holds it to `lifecycle.apply`, which decides."""

FAIR_ONLY = "runs are preempted for a job only by the policy fair; it needs SCHEDULER_POLICY=fair"

_IN_DATABASE = {rule.in_database: action for action, rule in ACTIONS.items() if rule.in_database}


def looks_at_spec(action: JobAction, job: Job) -> bool:
    """Whether the spec is checked again first: it goes into the queue, and may be old."""
    if not ACTIONS[action].queues:
        return False
    if job.spec.loop == UNREADABLE_LOOP:
        return True
    if action is JobAction.FORCE_START:
        return job.status in ACTIONS[action].acts_in - {Status.QUEUED}
    return job.status is not Status.QUEUED


def pushed_by(action: JobAction, *, ranks: bool, preempt: bool) -> Pushed:
    """What *action* asks for; *ranks*: the policy in charge has an order of its own.

    Raises InvalidRequest where the action takes no such wish, NotAllowed where the policy preempts nobody.
    """
    if preempt and not ACTIONS[action].takes_preempt:
        raise InvalidRequest(f"{action} preempts no other runs; force-start does")
    if preempt and not ranks:
        raise NotAllowed(FAIR_ONLY)
    if action is not JobAction.FORCE_START or not ranks:
        return ""
    return "preempt" if preempt else "front"


def event(
    action: JobAction,
    job: Job,
    *,
    at: datetime,
    by: str,
    end_of_line: int,
    chosen: Saved | None = None,
    pushed: Pushed = "",
) -> Event:
    """What *action* is to the life of *job*.  Raises NotAllowed for what no event may do."""
    match action:
        case JobAction.RESUME:
            return Resume(at=at, by=by, queue_seq=end_of_line, checkpoint=chosen)
        case JobAction.RESTART:
            return Restart(at=at, by=by, queue_seq=end_of_line)
        case JobAction.FORCE_START:
            return ForceStart(at=at, by=by, queue_seq=end_of_line, pushed=pushed)
        case JobAction.FAIL:
            return _give_up(job, at, by)
        case JobAction.CANCEL | JobAction.PAUSE | JobAction.PREEMPT:
            stop = ACTIONS[action].stop
            assert stop is not None, f"{action} is a stop"
            return AskStop(at=at, by=by, kind=stop)


def _give_up(job: Job, at: datetime, by: str) -> GiveUp:
    if job.status is Status.PAUSED:
        raise NotAllowed(f"job {job.id} is paused and can go on: resume it, or cancel it")
    return GiveUp(at=at, by=by, reason=Reason(code="given_up", message=f"marked as failed by {by}"))


def action_of(name: str) -> JobAction:
    """Raises InvalidRequest for what is none."""
    try:
        return JobAction(name)
    except ValueError:
        raise _no_action(name, JobAction) from None


def action_in_database(name: str) -> JobAction:
    """What a front end asks for.  Raises InvalidRequest for what it cannot ask for."""
    if name not in _IN_DATABASE:
        raise _no_action(name, _IN_DATABASE)
    return _IN_DATABASE[name]


def _no_action(name: str, known: Iterable[str]) -> InvalidRequest:
    return InvalidRequest(f"there is no action {name[:60]!r}; known are: {', '.join(known)}")
