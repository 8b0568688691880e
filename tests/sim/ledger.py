"""What one journal has said, commit by commit, and whether each step was a lawful one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from scheduler.core.invariants import violations
from scheduler.core.lifecycle import EDGES
from scheduler.core.model import Ending, Fence, Job, JobId, Status
from scheduler.ports import Change
from tests.sim.copies import Said
from tests.sim.runs import Cluster

BY_A_PERSON = frozenset({"ForceStart", "Resume"})
"""Only these move a job that had ended."""


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
        self.news: set[tuple[JobId, int]] = set()
        self._stopped: set[JobId] = set()
        self._fences: set[tuple[JobId, Fence]] = set()

    def take(self, changes: Sequence[Change]) -> list[str]:
        """Write down a commit; returns what is wrong with it."""
        wrong = list(chain.from_iterable(self._take(change) for change in changes))
        active = [job for job in self.jobs.values() if not job.status.is_terminal]
        nodes = self._cluster.nodes_now if self.is_first else ()  # a run that came back may be over, and hold nothing
        return wrong + violations(active, nodes)

    def has_cancelled(self, job_id: JobId) -> bool:
        """Now, or at any time before."""
        job = self.jobs.get(job_id)
        return job is not None and (job.status.is_terminal or job_id in self._stopped)

    def _take(self, change: Change) -> Iterator[str]:
        job, before = change.job, self.jobs.get(change.job.id)
        for rule in (_event_fits, _edge_is_lawful, _end_is_final, _news_is_told):
            yield from rule(before, change)
        yield from self._versions_follow(before, change)
        yield from self._run_has_ended(before, change)
        yield from self._fence_is_new(before, job)
        self.jobs[job.id] = job
        self._said.add((job.id, job.version, job.status))
        self.events.setdefault(job.id, []).append(change.event.version)
        if change.event.kind == "Admit":
            self.admitted.append(job)
        if change.event.kind == "AskStop":
            self._stopped.add(job.id)
        if change.is_news:
            self.news.add((job.id, job.version))

    def _versions_follow(self, before: Job | None, change: Change) -> Iterator[str]:
        came_back = not self.is_alone and change.event.kind == "Recover"
        if before and change.job.version != before.version + 1 and not came_back:
            yield f"job {before.id} went from version {before.version} to {change.job.version}"

    def _run_has_ended(self, before: Job | None, change: Change) -> Iterator[str]:
        """Rules 3 and 4 of the design: an end needs proof, and the final record of the run is the best."""
        if before is None or change.event.kind != "RunEnded":
            return
        run, status = (before.id, before.fence), change.job.status
        if self._cluster.is_alive(run):
            yield f"run {before.fence} of job {before.id} is said to have ended, and is alive"
        final = self._cluster.final(run)
        if (final is not None and final.ending is Ending.COMPLETED) != (status is Status.COMPLETED):
            yield f"run {before.fence} of job {before.id} ended as {final}, and the job is {status}"

    def _fence_is_new(self, before: Job | None, job: Job) -> Iterator[str]:
        if before and job.fence < before.fence:
            yield f"the fence of job {job.id} went back from {before.fence} to {job.fence}"
        if (before is None or before.fence != job.fence) and job.fence:
            if (job.id, job.fence) in self._fences:
                yield f"fence {job.fence} of job {job.id} was handed out twice"
            self._fences.add((job.id, job.fence))


def _event_fits(before: Job | None, change: Change) -> Iterator[str]:
    job, event = change.job, change.event
    if (event.job_id, event.version, event.to_status) != (job.id, job.version, job.status):
        yield f"event {event} is not that of {job.status} job {job.id}, version {job.version}"
    if before and event.from_status is not before.status and event.kind != "Recover":
        yield f"event {event} begins at {event.from_status}, and job {job.id} was {before.status}"


def _edge_is_lawful(before: Job | None, change: Change) -> Iterator[str]:
    from_status, to_status = change.event.from_status, change.job.status
    if from_status and from_status is not to_status and to_status not in EDGES[from_status]:
        yield f"job {change.job.id} went from {from_status} to {to_status}"


def _end_is_final(before: Job | None, change: Change) -> Iterator[str]:
    if before and before.status.is_terminal and change.event.kind not in BY_A_PERSON:
        yield f"job {before.id} was {before.status}, and nobody asked for {change.event.kind}"


def _news_is_told(before: Job | None, change: Change) -> Iterator[str]:
    """R10: whoever runs the cluster hears what the system gave up, or found again."""
    by_system = change.event.by in ("scheduler", "reconciler", "inbox", "start-up")
    is_its_users_business = change.event.reason.code == "invalid_spec"
    if change.event.kind in ("GiveUp", "Recover") and by_system and not (change.is_news or is_its_users_business):
        yield f"{change.event.kind} of job {change.job.id} by {change.event.by} is news, and nobody will be told"
