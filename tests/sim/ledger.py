"""What one journal has said, commit by commit, and whether each step was a lawful one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain

from scheduler.core.invariants import violations
from scheduler.core.lifecycle import EDGES, StartRun
from scheduler.core.model import (
    EVENT,
    OPERATOR_DOWN,
    CheckpointId,
    Ending,
    Fence,
    Job,
    JobId,
    Outcome,
    Status,
    StopKind,
)
from scheduler.core.reckoning import read
from scheduler.ports import Change, Run
from scheduler.testing.memory import Disk
from scheduler.testing.reckonings import faults
from tests.sim.attempts import Attempts
from tests.sim.copies import Said
from tests.sim.courses import Courses
from tests.sim.runs import Cluster

BY_A_PERSON = frozenset({"ForceStart", "Resume", "Restart"})
"""Only these move a job that had ended."""
MOVES_IN_LINE = BY_A_PERSON | {"Adopt"}
LET_GO = BY_A_PERSON | {"AskStop", "GiveUp"}
"""The last two by ending the job."""


class Ledger:
    """Kept by the simulation beside the disk, from the same commits, without the code under test."""

    def __init__(self, cluster: Cluster, said: set[Said], *, is_first: bool) -> None:
        self._cluster, self._said, self.is_first = cluster, said, is_first
        self.is_alone = is_first
        """No other journal was ever in use: what this one does not know, nobody knows."""
        self.jobs: dict[JobId, Job] = {}
        self.events: dict[JobId, list[int]] = {}
        """The versions of which there is an event, in the order of the commits."""
        self.admitted: list[Job] = []
        """Each job as it was when it got its nodes."""
        self.admitted_s: dict[Run, float] = {}
        self.news: set[tuple[JobId, int]] = set()
        self.preempted = 0
        """How many runs gave way to another job."""
        self.in_arrays = 0
        """How many runs of jobs of arrays began."""
        self.courses = Courses(cluster)
        self._stopped: set[JobId] = set()
        self._fences: set[tuple[JobId, Fence]] = set()
        self._attempts = Attempts()

    def begin_with(self, disk: Disk) -> None:
        """What a restored journal says already; what came after it is forgotten."""
        self.jobs = {job.id: job for job in disk.all_jobs()}
        self.events = {
            of: [EVENT.validate_json(doc).version for doc in docs] for of, docs in disk.events.items()
        }
        self._fences = {(of, Fence(int(fence))) for of, runs in disk.attempts.items() for fence in runs}
        self._attempts.begin_with(self.jobs.values())

    def take(self, changes: Sequence[Change]) -> list[str]:
        """Write down a commit; returns what is wrong with it."""
        wrong = list(chain.from_iterable(self._take(change) for change in changes))
        active = [job for job in self.jobs.values() if not job.status.is_terminal]
        # After a loss, a job comes back with the nodes of a run that may be over and hold nothing.
        nodes = self._cluster.nodes_now if self.is_alone else ()
        return wrong + violations(active, nodes)

    def run_began(self, action: StartRun, began_at: CheckpointId | None) -> Iterator[str]:
        """What is wrong with where the run of *action*, which lives now, began."""
        job = self.jobs.get(action.job_id)
        is_the_one = job is not None and (job.status, job.fence) == (Status.RUNNING, action.fence)
        if is_the_one and self.is_alone:
            yield from self.courses.run_began((action.job_id, action.fence), began_at)

    def has_cancelled(self, job_id: JobId) -> bool:
        """Now, or at any time before."""
        job = self.jobs.get(job_id)
        return job is not None and (job.status.is_terminal or job_id in self._stopped)

    def _take(self, change: Change) -> Iterator[str]:
        job, before = change.job, self.jobs.get(change.job.id)
        catches_up = change.event.kind == "Recover" and not self.is_alone
        if before and not catches_up:
            yield from _follows(before, change)
        yield from _is_lawful(change)
        yield from _news_is_told(change)
        yield from self._run_has_ended(before, change)
        yield from self._operators_stop_is_free(before, change)
        yield from self._fence_is_new(before, job)
        yield from self._is_no_false_alarm(before, change)
        yield from self._is_in_time(before, change)
        yield from self._has_waited(before, change)
        yield from self._keeps_to_the_limit_of_its_array(change)
        yield from self._gives_way_for_somebody(before, change)
        yield from self._room_is_kept(change)
        yield from self._recurs_alone(before, change)
        yield from self._may_be_there(change)
        yield from self._attempts.take(before, change)
        yield from self.courses.take(before, change, self.is_alone)
        self._write_down(change)

    def _write_down(self, change: Change) -> None:
        job, kind = change.job, change.event.kind
        self.jobs[job.id] = job
        self._said.add((job.id, job.version, job.status))
        self.events.setdefault(job.id, []).append(change.event.version)
        if kind == "Admit":
            self.admitted.append(job)
            self.admitted_s[job.id, job.fence] = self._cluster.now_s
        if kind == "AskStop":
            self._stopped.add(job.id)
        if change.is_news:
            self.news.add((job.id, job.version))

    def _run_has_ended(self, before: Job | None, change: Change) -> Iterator[str]:
        """Rules 3 and 4 of the design: an end needs proof, and the final record of the run is the best."""
        if before is None or change.event.kind != "RunEnded":
            return
        run, status = (before.id, before.fence), change.job.status
        if self._cluster.is_alive(run):
            yield f"run {before.fence} of job {before.id} is said to have ended, and is alive"
        if status is Status.COMPLETED and run not in self._cluster.finished:
            yield f"job {before.id} is completed, and not every rank of its run {before.fence} finished"
        final = self._cluster.final(run)
        if (final is not None and final.ending is Ending.COMPLETED) != (status is Status.COMPLETED):
            yield f"run {before.fence} of job {before.id} ended as {final}, and the job is {status}"

    def _recurs_alone(self, before: Job | None, change: Change) -> Iterator[str]:
        """S8: each moment of a recurring job makes one job, and none while another of it is under way."""
        key, kind = change.job.idempotency_key or "", change.event.kind
        if before is not None or kind != "Submitted" or not key.startswith("every:"):
            return
        recurring = key.split(":")[1]
        for other in self.jobs.values():
            theirs = other.idempotency_key or ""
            if theirs == key:
                yield f"jobs {other.id} and {change.job.id} were both made for {key}"
            elif theirs.startswith(f"every:{recurring}:") and not other.status.is_terminal:
                yield f"job {change.job.id} was made for {key} while {other.id} is {other.status}"

    def _operators_stop_is_free(self, before: Job | None, change: Change) -> Iterator[str]:
        """B3: what an operator ended is nobody's loss, and goes on in its old place unless a person asked for more."""
        if before is None or change.event.kind != "RunEnded":
            return
        final, stop, job = self._cluster.final((before.id, before.fence)), before.stop, change.job
        by_word = final is not None and final.reason.code == OPERATOR_DOWN
        if not (by_word or (stop and stop.is_operators and not _is_by_itself(final))):
            return
        if stop and stop.kind is StopKind.HUNG:
            return
        if _charged(job) != _charged(before):
            yield f"job {job.id} pays for what the operator ended: {_charged(before)} became {_charged(job)}"
        if (stop is None or stop.is_operators) and job.status is not Status.QUEUED:
            yield f"job {job.id} was ended by the operator, and is {job.status}"

    def _is_no_false_alarm(self, before: Job | None, change: Change) -> Iterator[str]:
        """What is stopped because it hangs does hang."""
        stop, run = change.job.stop, (change.job.id, change.job.fence)
        hung = stop is not None and stop.kind is StopKind.HUNG and (before is None or stop != before.stop)
        if hung and run not in self._cluster.stuck:
            yield f"run {run} is stopped because it hangs, and it does not"

    def _is_in_time(self, before: Job | None, change: Change) -> Iterator[str]:
        """What is stopped because its time is over has had its time, whatever the clocks say."""
        job, stop = change.job, change.job.stop
        is_new = (
            stop is not None and stop.kind is StopKind.TIMEOUT and (before is None or stop != before.stop)
        )
        if is_new and job.spec.max_runtime_s is not None:
            went_s = self._cluster.went_s((job.id, job.fence))
            if went_s < job.spec.max_runtime_s:
                yield f"run {job.fence} of job {job.id} is out of time after {went_s:g} s"

    def _has_waited(self, before: Job | None, change: Change) -> Iterator[str]:
        """S8: a job starts when all for which it waits have ended so, and fails for them when one of them has not."""
        job = change.job
        parents = [(after.on, self.jobs.get(JobId(after.job))) for after in job.spec.after]
        known = [(on, parent.status) for on, parent in parents if parent]
        if change.event.kind == "Admit" and any(not _met(on, status) for on, status in known):
            yield f"job {job.id} starts, and has to wait for {known}"
        moment = job.spec.start_after
        if change.event.kind == "Admit" and moment and change.event.at < moment:
            yield f"job {job.id} starts before {moment}"
        in_vain = [on for on, status in known if status.is_terminal and not _met(on, status)]
        if change.event.reason.code == "after_not_met" and not in_vain and len(known) == len(parents):
            yield f"job {job.id} is failed, and may still start after {known}"

    def _keeps_to_the_limit_of_its_array(self, change: Change) -> Iterator[str]:
        """S8: at most so many jobs of one array run at once."""
        job, array = change.job, change.job.spec.array
        if change.event.kind != "Admit" or array is None or not self.is_alone:
            return
        others = [
            one.id
            for one in self.jobs.values()
            if one.status is Status.RUNNING
            and one.id != job.id
            and one.spec.array
            and one.spec.array.id == array.id
        ]
        self.in_arrays += 1
        if len(others) >= array.at_most:
            yield f"job {job.id} starts beside {others} of its array, of which {array.at_most} may run at once"

    def _gives_way_for_somebody(self, before: Job | None, change: Change) -> Iterator[str]:
        """S3, N7: who is preempted frees nodes that are kept for the one for whom; and the choice can be made again."""
        job, stop = change.job, change.job.stop
        if stop is None or stop.why is None or stop.why.code != "preempted_for" or (before and before.stop):
            return
        told = read((stop.evidence or {})["reckoning"])
        newcomer = self.jobs.get(told.newcomer)
        if newcomer is None or newcomer.kept != told.allocation:
            yield f"run {job.fence} of job {job.id} is preempted, and nothing is kept for job {told.newcomer}"
        yield from (
            f"job {job.id} is preempted for job {told.newcomer}: {words}" for words in faults(told, job.id)
        )
        self.preempted += 1

    def _room_is_kept(self, change: Change) -> Iterator[str]:
        """S3: nobody else gets what is kept for a job for which others are being stopped."""
        if change.event.kind != "Admit" or not change.job.allocation or not self.is_alone:
            return
        jobs = {**self.jobs, change.job.id: change.job}
        taken: Counter[str] = Counter()
        for job in jobs.values():
            held = job.kept or (job.allocation if job.stop is None else None)
            for node, ranks in held.ranks if held else ():
                taken[node] += ranks * job.spec.resources.cpus_per_rank
        for node in self._cluster.nodes_now:
            if node.id in change.job.allocation.node_of_each_rank and taken[node.id] > node.cpus:
                yield f"job {change.job.id} starts on {node.id}, where room is kept for another"

    def _may_be_there(self, change: Change) -> Iterator[str]:
        """S6: a job starts only on nodes of the kind that it asks for, and on none that is set aside."""
        held = change.job.allocation
        if change.event.kind != "Admit" or held is None or not self.is_alone:
            return
        there = [node for node in self._cluster.nodes_now if node.id in held.node_of_each_rank]
        aside = self._cluster.set_aside()
        for node in there:
            if node.name in aside:
                yield f"job {change.job.id} starts on {node.id}, which is set aside"
            for label, wanted in change.job.spec.resources.on.items():
                if node.labels[label] not in ([wanted] if isinstance(wanted, str) else wanted):
                    yield f"job {change.job.id} starts on {node.id}, and wants {label}={wanted}"

    def _fence_is_new(self, before: Job | None, job: Job) -> Iterator[str]:
        if before and job.fence < before.fence:
            yield f"the fence of job {job.id} went back from {before.fence} to {job.fence}"
        if (before is None or before.fence != job.fence) and job.fence:
            if (job.id, job.fence) in self._fences:
                yield f"fence {job.fence} of job {job.id} was handed out twice"
            self._fences.add((job.id, job.fence))


def _met(on: str, status: Status) -> bool:
    return status.is_terminal if on == "ended" else status == on


def _charged(job: Job) -> tuple[int, int, int]:
    return job.failures, job.losses, job.preemptions


def _is_by_itself(final: Outcome | None) -> bool:
    return final is not None and final.ending in (Ending.COMPLETED, Ending.FAILED)


def _follows(before: Job, change: Change) -> Iterator[str]:
    """One step of one job: no version left out, and an end is final unless a person asks."""
    job, event = change.job, change.event
    if job.version != before.version + 1:
        yield f"job {job.id} went from version {before.version} to {job.version}"
    if event.from_status is not before.status:
        yield f"event {event} begins at {event.from_status}, and job {job.id} was {before.status}"
    if job.queue_seq != before.queue_seq and not _may_move(before, change):
        yield f"job {job.id} lost its place in the queue: {event.kind}"
    if before.held and not job.held and event.kind not in LET_GO:
        yield f"job {job.id} was held, and nobody let it go: {event.kind}"
    if before.held and job.status is Status.RUNNING:
        yield f"job {job.id} is held, and starts"
    if before.status.is_terminal and event.kind not in BY_A_PERSON:
        yield f"job {job.id} was {before.status}, and nobody asked for {event.kind}"


def _may_move(before: Job, change: Change) -> bool:
    stop = before.stop
    gave_way = stop is not None and stop.kind is StopKind.PREEMPT and not stop.is_operators
    kinds = MOVES_IN_LINE | ({"RunEnded"} if gave_way else set())
    return change.event.kind in kinds and before.status is not Status.QUEUED


def _is_lawful(change: Change) -> Iterator[str]:
    job, event = change.job, change.event
    if (event.job_id, event.version, event.to_status) != (job.id, job.version, job.status):
        yield f"event {event} is not that of {job.status} job {job.id}, version {job.version}"
    if (
        event.from_status
        and event.from_status is not job.status
        and job.status not in EDGES[event.from_status]
    ):
        yield f"job {job.id} went from {event.from_status} to {job.status}"


def _news_is_told(change: Change) -> Iterator[str]:
    """R10: whoever runs the cluster hears what the system gave up, or found again."""
    by_system = change.event.by in ("scheduler", "reconciler", "inbox", "start-up")
    is_its_users_business = change.event.reason.code in ("invalid_spec", "after_not_met")
    if (
        change.event.kind in ("GiveUp", "Recover")
        and by_system
        and not (change.is_news or is_its_users_business)
    ):
        yield f"{change.event.kind} of job {change.job.id} by {change.event.by} is news, and nobody will be told"
