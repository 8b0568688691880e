"""Nodes that lose runs: which of them a loss is laid to, and which are set aside, so that nothing new starts there.

One job that is lost again and again may be to blame itself.  Two different ones, within an hour, speak against the node.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter

from scheduler.core.model import Cause, Ending, Job, JobId, Node, NodeId, Outcome

WITHIN_S = 3600.0
JOBS = 2
"""So many different jobs, lost within `WITHIN_S`."""
BY_ITSELF = "scheduler"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLoss:
    """A run that was lost on a node."""

    node: str
    """Its name: another Ray on the same machine has another id."""
    job_id: JobId
    job: str
    at_s: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """Nothing new starts on a node until a person lets it back."""

    node: str
    at_s: float
    by: str
    """A person, or `BY_ITSELF`."""
    why: str
    losses: tuple[NodeLoss, ...] = ()
    """What speaks against it."""


LOSSES: TypeAdapter[tuple[NodeLoss, ...]] = TypeAdapter(tuple[NodeLoss, ...])
ASIDE: TypeAdapter[tuple[SetAside, ...]] = TypeAdapter(tuple[SetAside, ...])


def name_of(node: Node) -> str:
    return node.name or node.id


def blamed(job: Job, outcome: Outcome) -> tuple[NodeId, ...]:
    """The nodes to which the loss of the run of *job* is laid: none where it was asked to stop, or somebody else is
    answerable, or a run on several nodes does not tell which of them it was."""
    if outcome.ending is not Ending.LOST or outcome.cause is not Cause.INFRASTRUCTURE or job.stop:
        return ()
    held = tuple(node for node, _ in job.allocation.ranks) if job.allocation else ()
    return held if len(held) == 1 else tuple(node for node in outcome.failed_on if node in held)


def lately(losses: Iterable[NodeLoss], now_s: float) -> tuple[NodeLoss, ...]:
    return tuple(loss for loss in losses if now_s - WITHIN_S < loss.at_s)


def to_set_aside(
    losses: Iterable[NodeLoss],
    aside: Mapping[str, SetAside],
    nodes: Sequence[Node],
    share: float,
    now_s: float,
) -> tuple[SetAside, ...]:
    """Which further nodes are set aside now: at most *share* of all in this way, but one may be where there are two.
    Never the last one on which something may start."""
    names = {name_of(node) for node in nodes}
    open_ = {name_of(node) for node in nodes if not node.draining} - aside.keys()
    left = max(1, int(share * len(names))) if share else 0
    left -= sum(one.by == BY_ITSELF and name in names for name, one in aside.items())
    found: list[SetAside] = []
    for name, against in _worst_first(lately(losses, now_s), open_):
        if len(found) >= left or len(open_) - len(found) <= 1:
            break
        found.append(SetAside(node=name, at_s=now_s, by=BY_ITSELF, why=_words(against), losses=against))
    return tuple(found)


def suspects(
    losses: Iterable[NodeLoss], aside: Collection[str], now_s: float
) -> dict[str, tuple[NodeLoss, ...]]:
    """Nodes with as much against them as against one that is set aside, and that are not."""
    recent = lately(losses, now_s)
    return dict(_worst_first(recent, {loss.node for loss in recent} - set(aside)))


def _worst_first(
    losses: Iterable[NodeLoss], names: Collection[str]
) -> list[tuple[str, tuple[NodeLoss, ...]]]:
    against: dict[str, list[NodeLoss]] = {}
    for loss in losses:
        if loss.node in names:
            against.setdefault(loss.node, []).append(loss)
    bad = [(name, tuple(found)) for name, found in against.items() if _num_jobs(found) >= JOBS]
    return sorted(bad, key=lambda one: (-_num_jobs(one[1]), -one[1][-1].at_s, one[0]))


def _num_jobs(losses: Iterable[NodeLoss]) -> int:
    return len({loss.job_id for loss in losses})


def _words(losses: Sequence[NodeLoss]) -> str:
    return f"runs of {_num_jobs(losses)} different jobs were lost on it within an hour"
