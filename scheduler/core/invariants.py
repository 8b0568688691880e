"""What must be true of the registry at every moment, whatever happened.  Shares no code with placement."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator

from scheduler.core.model import Gang, Job, Node, NodeId, Status


def violations(jobs: Iterable[Job], nodes: Iterable[Node]) -> list[str]:
    """Broken rules, in words; empty when all is well.

    *nodes* are the live ones: a run may still be ending on a node that has gone, and that is no violation.
    """
    jobs, nodes = list(jobs), list(nodes)
    return [words for job in jobs for words in _of_job(job)] + [*_of_line(jobs), *_of_nodes(jobs, nodes)]


def _of_job(job: Job) -> Iterator[str]:
    for rule, words in RULES:
        if not rule(job):
            yield f"job {job.id} ({job.status}, version {job.version}, fence {job.fence}) {words}"


RULES: tuple[tuple[Callable[[Job], bool], str], ...] = (
    (
        lambda job: (job.allocation is not None) == (job.status is Status.RUNNING),
        "must hold an allocation exactly while it runs",
    ),
    (
        lambda job: job.allocation is None or _gang(job).fewest <= _ranks(job) <= _gang(job).most,
        "must hold its gang whole: as many ranks as it asked for",
    ),
    (
        lambda job: job.allocation is None or all(count > 0 for _, count in job.allocation.ranks),
        "must hold at least one rank on each node of its allocation",
    ),
    (
        lambda job: job.status is not Status.QUEUED or job.queue_seq is not None,
        "must have a place in the queue while it is queued",
    ),
    (
        lambda job: (job.finished_at is not None) == job.status.is_terminal,
        "must have finished_at exactly when nothing more happens to it",
    ),
    (lambda job: job.stop is None or job.status is Status.RUNNING, "may be told to stop only while it runs"),
    (
        lambda job: job.retry_at is None or job.status is Status.QUEUED,
        "may pause before a retry only in the queue",
    ),
    (lambda job: not job.held or job.status is Status.QUEUED, "may be held only in the queue"),
    (
        lambda job: job.kept is None or (job.status is Status.QUEUED and not job.held),
        "may have nodes kept for it only while it waits and is not held",
    ),
    (
        lambda job: not job.pushed or job.status in (Status.QUEUED, Status.RUNNING),
        "may go before others only while it waits, and while it runs then",
    ),
    (
        lambda job: job.status not in HAVE_RUN or job.fence >= 1,
        "must have had a run: its fence must be 1 or more",
    ),
    (lambda job: job.fence >= 0, "must not have a negative fence"),
    (
        lambda job: (job.started_at is not None) == (job.fence >= 1),
        "must have started_at exactly when it has had a run",
    ),
    (lambda job: job.version >= 1, "must have a version of 1 or more"),
    (
        lambda job: min(job.failures, job.losses, job.preemptions, job.repeats) >= 0,
        "must not have a negative count",
    ),
    (
        lambda job: _tries(job) + (job.status is Status.RUNNING) <= job.fence,
        "must not have more failures, losses and preemptions than runs that ended",
    ),
    (lambda job: job.origin.after <= job.fence, "must not begin after a run that is still to come"),
)
HAVE_RUN = (Status.RUNNING, Status.PAUSED, Status.COMPLETED)


def _gang(job: Job) -> Gang:
    return job.spec.resources


def _tries(job: Job) -> int:
    return job.failures + job.losses + job.preemptions


def _ranks(job: Job) -> int:
    return sum(count for _, count in job.allocation.ranks) if job.allocation else 0


def _of_line(jobs: list[Job]) -> Iterator[str]:
    places = Counter(
        job.queue_seq for job in jobs if job.status is Status.QUEUED and job.queue_seq is not None
    )
    for place, count in places.items():
        if count > 1:
            yield f"place {place} of the queue is held by {count} queued jobs"
    for job_id, count in Counter(job.id for job in jobs).items():
        if count > 1:
            yield f"job {job_id} is in the registry {count} times"


def _of_nodes(jobs: list[Job], nodes: list[Node]) -> Iterator[str]:
    held: defaultdict[NodeId, list[tuple[Gang, int]]] = defaultdict(list)
    for job in jobs:
        for node, count in job.allocation.ranks if job.allocation else ():
            held[node].append((job.spec.resources, count))
    for node in nodes:
        yield from _of_node(node, held[node.id])


def _of_node(node: Node, held: list[tuple[Gang, int]]) -> Iterator[str]:
    cpus = sum(_units(gang.cpus_per_rank) * count for gang, count in held)
    gpus = sum(_units(gang.gpus_per_rank) * count for gang, count in held)
    if cpus > _units(node.cpus):
        yield f"node {node.id} is oversubscribed: {cpus / UNIT:g} of {node.cpus:g} CPUs are held"
    if gpus > _units(node.gpus):
        yield f"node {node.id} is oversubscribed: {gpus / UNIT:g} of {node.gpus:g} GPUs are held"
    elif crowd := _crowd(node, held):
        yield f"node {node.id} is oversubscribed: {crowd}"


def _crowd(node: Node, held: list[tuple[Gang, int]]) -> str | None:
    """A fraction lies on one device, so a device holds at most k ranks that take more than 1/(k+1) of it."""
    whole = sum(int(gang.gpus_per_rank) * count for gang, count in held)
    shared = math.ceil(node.gpus) - whole
    fractions = [
        (max(1, _units(gang.gpus_per_rank)), count) for gang, count in held if 0 < gang.gpus_per_rank < 1
    ]
    for fraction, _ in fractions:
        per_device = UNIT // fraction
        count = sum(count for other, count in fractions if other * (per_device + 1) > UNIT)
        if count > per_device * shared:
            return f"{count} ranks that take {fraction / UNIT:g} GPU or more share {shared} GPUs"
    return None


UNIT = 10_000
"""Ray counts resources in ten-thousandths."""


def _units(amount: float) -> int:
    return round(amount * UNIT)
