"""When would a job start?  Placement, played forward in time on copies of the cluster.

Nothing here knows the future: a forecast is what placement would do if each run took as long as it says, or as
runs like it took.  Where that is not known, the forecast says so instead of guessing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from statistics import median

from scheduler.core import arrays, ordering, placement
from scheduler.core.dependencies import Parents
from scheduler.core.durations import span
from scheduler.core.finite import finite
from scheduler.core.hangs import Pace
from scheduler.core.model import Allocation, Gang, Job, JobId, Json, Node, NodeId, Snapshot, Status

MAX_LINE = 1000
"""Jobs of the queue that are played: who stands behind them does not keep them waiting for long."""
MAX_LOOKS = 50_000
"""Jobs that placement looks at in one forecast, over all of its passes: about a tenth of a second."""
HORIZON_S = 10 * 365 * 86_400.0
"""A loop that never ends by itself may say any number of steps; no calendar reaches as far as some."""
SOONEST_S = 1.0
"""A run that should have ended by now, and has not, ends so soon."""
MAX_NAMED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A job that has nodes."""

    job: Job
    allocation: Allocation
    left_s: float | None
    """How much longer it has them; None: nobody can tell."""
    returns: bool = False
    """It is preempted, and waits in the queue again after that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """When a job would start.  Exactly one of the first two is set, or `why`."""

    after_s: float | None = None
    """0: placement would start it now."""
    more_than_s: float | None = None
    """Later than this; it was not played further."""
    why: str = ""
    """Nobody can tell, or never as things stand; a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The cluster and the queue at one instant."""

    now: datetime
    nodes: tuple[Node, ...]
    holds: tuple[Hold, ...]
    line: tuple[Job, ...]
    """The queued jobs in the order of their turn, or the first of them."""
    length_s: Callable[[Job], float | None]
    """How long a job would run that waits now; None: nobody can tell."""
    parents: Parents = field(default_factory=dict[str, Status | None])
    """How those stand for which others wait."""

    def snapshot(self) -> Snapshot:
        held = tuple((hold.job.spec.resources, hold.allocation) for hold in self.holds)
        return Snapshot(nodes=self.nodes, running=held)


def play(target: JobId, scene: Scene, max_looks: int = MAX_LOOKS) -> Start:
    """When *target* would start: it waits in the queue of *scene*, or holds nodes and gives them back.

    The first pass is the one that the scheduler makes now, so "now" is said exactly when it would start it.
    """
    if any(job.id == target and job.held for job in scene.line):
        return Start(why="held for a person")
    at_s, looks, now = 0.0, 0, scene.now
    while True:
        queue = arrays.limited(
            ordering.order(scene.line, now=now + timedelta(seconds=at_s), parents=scene.parents),
            (hold.job for hold in scene.holds),
        )
        ready, plan = queue.ready, placement.plan(queue.ready, scene.snapshot())
        if target in plan.start:
            return Start(after_s=at_s)
        blocked = plan.blocked.get(target)
        if blocked and blocked.code == "does_not_fit_here":
            return Start(why=f"does not fit on this cluster: {blocked.message}")
        scene = _begun(scene, plan, at_s)
        looks += len(ready) + 1
        next_s = _next_change_s(scene, at_s)
        if next_s is None:
            waits = queue.paused.get(target)
            return Start(why=f"it is not known when: {waits.message if waits else _why_unknown(scene)}")
        if looks > max_looks:
            return Start(more_than_s=at_s)
        if next_s > HORIZON_S:
            return Start(more_than_s=HORIZON_S)
        at_s = next_s
        scene = _released(scene, at_s)


def left_s(
    job: Job, *, progress: Json | None, pace: Pace | None, stepped_at: datetime | None, now: datetime
) -> float | None:
    """How much longer a run will take by its own steps and its time limit; None: it tells neither."""
    known = [steps_left_s(progress, pace, stepped_at, now), limit_left_s(job, now)]
    return min((left for left in known if left is not None), default=None)


def steps_left_s(
    progress: Json | None, pace: Pace | None, stepped_at: datetime | None, now: datetime
) -> float | None:
    told = progress or {}
    step, total = finite(told.get("step")), finite(told.get("total_steps"))
    if pace is None or step is None or total is None:
        return None
    since_s = (now - stepped_at).total_seconds() if stepped_at else 0.0
    return max(0.0, (total - step) * pace.typical_s - since_s)


def limit_left_s(job: Job, now: datetime) -> float | None:
    if job.spec.max_runtime_s is None or job.admitted_at is None:
        return None
    return max(0.0, job.spec.max_runtime_s - (now - job.admitted_at).total_seconds())


class Usual:
    """How long runs took: the median over those of the same loop and gang, else over those of the same loop."""

    def __init__(self, completed: Iterable[Job]) -> None:
        took: dict[tuple[str, Gang | None], list[float]] = {}
        for job in completed:
            if (seconds := _took_s(job)) is not None:
                took.setdefault((job.spec.loop, job.spec.resources), []).append(seconds)
                took.setdefault((job.spec.loop, None), []).append(seconds)
        self._median = {what: median(times) for what, times in took.items()}

    def length_s(self, job: Job) -> float | None:
        """What is left of it, when it goes on from a checkpoint; never more than its own time limit."""
        spec = job.spec
        known = self._median.get((spec.loop, spec.resources), self._median.get((spec.loop, None)))
        by_others = [] if known is None else [known * _share_left(job)]
        by_limit = [] if spec.max_runtime_s is None else [spec.max_runtime_s]
        return min(by_others + by_limit, default=None)


def _took_s(job: Job) -> float | None:
    """Of a job that completed in one go."""
    if job.status is not Status.COMPLETED or job.attempt != 1 or not (job.finished_at and job.admitted_at):
        return None
    return (job.finished_at - job.admitted_at).total_seconds()


def _share_left(job: Job) -> float:
    done = finite(job.saved.step) if job.saved else None
    total = finite((job.progress or {}).get("total_steps"))
    return max(0.0, 1 - done / total) if done and total and total > 0 else 1.0


def sentence(position: int, ahead: Sequence[str], start: Start) -> str:
    """`position 3, behind A and B; starts in about 6 min`.  *ahead*: the names of all, or of the first, before it."""
    behind = f", behind {_listed(ahead, position - 1)}" if ahead else ""
    place = "next" if position == 1 else f"position {position}{behind}"
    if start.after_s == 0 and position > 1:
        place = f"position {position}"
    return f"{place}; {in_words(start)}"


def in_words(start: Start, does: str = "starts") -> str:
    """`starts in about 6 min`."""
    if start.after_s == 0:
        return f"{does} now"
    if start.after_s is not None:
        return f"{does} in {about(start.after_s)}"
    if start.more_than_s is not None:
        return f"{does} in more than {span(start.more_than_s)}"
    return start.why


def about(seconds: float) -> str:
    return f"about {span(max(1, math.ceil(seconds)))}"


def _listed(names: Sequence[str], count: int) -> str:
    shown = list(names[:MAX_NAMED]) if count > MAX_NAMED + 1 else list(names)
    if count > len(shown):
        shown.append(f"{count - len(shown):,} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _begun(scene: Scene, plan: placement.Plan, at_s: float) -> Scene:
    """With what placement starts at *at_s*; `left_s` of each hold counts from the beginning of the play."""
    jobs = {job.id: job for job in scene.line}
    begun: list[Hold] = []
    for job_id, allocation in plan.start.items():
        length_s = scene.length_s(jobs[job_id])
        ends_s = None if length_s is None else at_s + max(SOONEST_S, length_s)
        begun.append(Hold(job=jobs[job_id], allocation=allocation, left_s=ends_s))
    return replace(
        scene,
        nodes=_with_available(scene.nodes, begun, sign=-1),
        holds=(*scene.holds, *begun),
        line=tuple(job for job in scene.line if job.id not in plan.start),
    )


def _next_change_s(scene: Scene, at_s: float) -> float | None:
    """When something ends, or a pause between two tries is over; None: never, as far as anyone can tell."""
    ends = [max(hold.left_s, SOONEST_S) for hold in scene.holds if hold.left_s is not None]
    moments = [
        (moment - scene.now).total_seconds()
        for job in scene.line
        for moment in (job.retry_at, job.spec.start_after)
        if moment and not job.held
    ]
    return min((change_s for change_s in (*ends, *moments) if change_s > at_s), default=None)


def _released(scene: Scene, at_s: float) -> Scene:
    ended = [hold for hold in scene.holds if _has_ended(hold, at_s)]
    back = [replace(hold.job, status=Status.QUEUED, retry_at=None) for hold in ended if hold.returns]
    completed = {hold.job.id: Status.COMPLETED for hold in ended if not hold.returns}
    return replace(
        scene,
        parents={**scene.parents, **completed},
        nodes=_with_available(scene.nodes, ended, sign=1),
        holds=tuple(hold for hold in scene.holds if not _has_ended(hold, at_s)),
        line=tuple(sorted((*scene.line, *back), key=ordering.turn)) if back else scene.line,
    )


def _has_ended(hold: Hold, at_s: float) -> bool:
    return hold.left_s is not None and max(hold.left_s, SOONEST_S) <= at_s


def _with_available(nodes: tuple[Node, ...], holds: Sequence[Hold], sign: int) -> tuple[Node, ...]:
    """What Ray says is free, as it would be then: what others use of the nodes stays used."""
    cpus: dict[NodeId, float] = {}
    gpus: dict[NodeId, float] = {}
    for hold in holds:
        gang = hold.job.spec.resources
        for node, ranks in hold.allocation.ranks:
            cpus[node] = cpus.get(node, 0.0) + sign * ranks * gang.cpus_per_rank
            gpus[node] = gpus.get(node, 0.0) + sign * ranks * gang.gpus_per_rank
    return tuple(
        replace(
            node,
            available_cpus=_moved(node.available_cpus, cpus[node.id]),
            available_gpus=_moved(node.available_gpus, gpus[node.id]),
        )
        if node.id in cpus
        else node
        for node in nodes
    )


def _moved(available: float | None, by: float) -> float | None:
    return None if available is None else max(0.0, available + by)


def _why_unknown(scene: Scene) -> str:
    endless = [hold for hold in scene.holds if hold.left_s is None]
    running = [hold.job.spec.name for hold in endless if hold.job.status is Status.RUNNING]
    return why_unknown(
        running, [hold.job.spec.name for hold in endless if hold.job.status is not Status.RUNNING]
    )


ELSEWHERE = "what it needs is in use by something else than the jobs of this scheduler"


def why_unknown(running: Sequence[str], waiting: Sequence[str]) -> str:
    """Of runs that go on for nobody knows how long: those that run now, and those that would have started."""
    if running:
        has = "has not reported its steps" if len(running) == 1 else "have not reported their steps"
        return f"{_listed(running, len(running))} {has}"
    if waiting:
        return f"no run like {_listed(waiting, len(waiting))} has completed yet, and no time limit is set"
    return ELSEWHERE
