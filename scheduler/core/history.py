"""What was, as a trace: the jobs of a journal that ran and ended, and the nodes that their runs were seen on."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from scheduler.core.codec import UNREADABLE
from scheduler.core.model import Attempt, Job, JobId, NodeId
from scheduler.core.needs import Outline
from scheduler.core.replay import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class PastJob:
    """A job as it is now, with every run that it had."""

    job: Job
    attempts: tuple[Attempt, ...]


class LeftOut(StrEnum):
    """Why a job of the past is not in the trace, as a clause after a number."""

    NEVER_RAN = "never ran"
    NOT_ENDED = "have not ended"
    UNKNOWN = "have runs of which the journal knows nothing"
    TOO_LARGE = "are more than these nodes could hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A run had so much of a node, from then to then."""

    node: NodeId
    from_s: float
    to_s: float
    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    entries: tuple[Entry, ...]
    """Seconds are counted from the beginning of the time that was asked for."""
    left_out: Counter[LeftOut]
    holds: tuple[Hold, ...]
    """Of all runs, also of jobs that have not ended."""

    def on(self, cluster: Outline) -> History:
        """Without what *cluster* could never hold.  Where its nodes have no labels, none is asked for."""
        entries = self.entries
        if not any(node.labels for node in cluster.nodes):
            entries = tuple(
                replace(one, gang=replace(one.gang, on={})) if one.gang.on else one for one in entries
            )
        fits = tuple(one for one in entries if cluster.in_all(cluster.need_of(one.gang)) >= one.gang.fewest)
        left_out = self.left_out + Counter({LeftOut.TOO_LARGE: len(self.entries) - len(fits)})
        return History(entries=fits, left_out=left_out, holds=self.holds)


def history(past: Iterable[PastJob], since: datetime, until: datetime) -> History:
    """*past*: the jobs that were submitted from *since* to *until*, in that order."""
    entries: list[Entry] = []
    left_out: Counter[LeftOut] = Counter()
    holds: list[Hold] = []
    ends: dict[JobId, float] = {}
    for one in past:
        holds += _holds(one, since, until)
        found = _entry(one, since, ends)
        if isinstance(found, Entry):
            entries.append(found)
        else:
            left_out[found] += 1
    return History(entries=tuple(entries), left_out=left_out, holds=tuple(holds))


def _entry(past: PastJob, since: datetime, ends: dict[JobId, float]) -> Entry | LeftOut:
    """*ends* of the jobs before; this one is added to them."""
    job, spec = past.job, past.job.spec
    if job.reason.code == UNREADABLE:
        return LeftOut.UNKNOWN
    if not job.status.is_terminal:
        return LeftOut.NOT_ENDED if job.attempt else LeftOut.NEVER_RAN
    ends[job.id] = ((job.finished_at or job.updated_at) - since).total_seconds()
    ran_s = sum(
        max(0.0, (run.ended_at - run.started_at).total_seconds()) for run in past.attempts if run.ended_at
    )
    if not ran_s:
        return LeftOut.UNKNOWN if job.attempt > len(past.attempts) else LeftOut.NEVER_RAN
    could_start = [(job.created_at - since).total_seconds()]
    if spec.start_after:
        could_start.append((spec.start_after - since).total_seconds())
    could_start += (ends[JobId(parent.job)] for parent in spec.after if parent.job in ends)
    return Entry(
        submit_s=max(could_start),
        duration_s=ran_s,
        gang=spec.resources,
        project=spec.project,
        user=spec.user,
        priority=spec.priority,
        preemptible=spec.preemptible,
    )


def _holds(past: PastJob, since: datetime, until: datetime) -> Iterator[Hold]:
    gang = past.job.spec.resources
    for run in past.attempts:
        for node, ranks in run.allocation.ranks:
            yield Hold(
                node=node,
                from_s=(run.started_at - since).total_seconds(),
                to_s=((run.ended_at or until) - since).total_seconds(),
                cpus=ranks * gang.cpus_per_rank,
                gpus=ranks * gang.gpus_per_rank,
            )


# The nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenNode:
    """A node, by the runs that it had: at least so large, and there at least from then to then."""

    cpus: int
    gpus: int
    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenNodes:
    largest: tuple[SeenNode, ...]
    """The most that were there at one time, the largest first."""
    num_seen: int
    """Ever.  A node that Ray started anew has another id and counts twice."""


def seen_nodes(holds: Sequence[Hold]) -> SeenNodes:
    """Of all moments, that at which the nodes that were there had most GPUs; of these, most CPUs."""
    by_node: defaultdict[NodeId, list[Hold]] = defaultdict(list)
    for hold in holds:
        by_node[hold.node].append(hold)
    nodes = [_seen(of_one) for of_one in by_node.values()]
    moments = [(one.from_s, 0, number) for number, one in enumerate(nodes)]
    moments += [
        (one.to_s, 1, number) for number, one in enumerate(nodes)
    ]  # one more is there before one goes
    there: set[int] = set()
    gpus = cpus = 0
    most, largest = (-1, -1), frozenset[int]()
    for _, goes, number in sorted(moments):
        sign = -1 if goes else 1
        gpus, cpus = gpus + sign * nodes[number].gpus, cpus + sign * nodes[number].cpus
        (there.discard if goes else there.add)(number)
        if (gpus, cpus) > most:
            most, largest = (gpus, cpus), frozenset(there)
    chosen = sorted((nodes[number] for number in largest), key=_size, reverse=True)
    return SeenNodes(largest=tuple(chosen), num_seen=len(nodes))


def _size(node: SeenNode) -> tuple[int, int]:
    return node.gpus, node.cpus


def _seen(holds: Sequence[Hold]) -> SeenNode:
    """As large as what was ever held of it at once; at the moment of a change, first what ends is given back."""
    changes = [(one.from_s, 1, one) for one in holds] + [(one.to_s, -1, one) for one in holds]
    cpus = gpus = most_cpus = most_gpus = 0.0
    for _, sign, one in sorted(changes, key=_by_moment):
        cpus, gpus = cpus + sign * one.cpus, gpus + sign * one.gpus
        most_cpus, most_gpus = max(most_cpus, cpus), max(most_gpus, gpus)
    return SeenNode(
        cpus=math.ceil(most_cpus - _ROUNDING),
        gpus=math.ceil(most_gpus - _ROUNDING),
        from_s=min(one.from_s for one in holds),
        to_s=max(one.to_s for one in holds),
    )


_ROUNDING = 1e-6


def _by_moment(change: tuple[float, int, Hold]) -> tuple[float, int]:
    return change[:2]
