"""Where two policies decide otherwise of the same scene, job by job, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from scheduler.core.model import Allocation, JobId, NodeId
from scheduler.core.policy import Decision, Start

Kind = Literal["start", "preempt", "wait", "place"]
KINDS: tuple[Kind, ...] = ("start", "preempt", "wait", "place")
"""It would have started a job that waits; preempted others for it; let wait one that starts; taken other nodes."""
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    job_id: JobId
    kind: Kind
    words: str
    """What the other policy would have done."""


@dataclass(frozen=True, slots=True)
class Names:
    """How people know them."""

    job: Callable[[JobId], str]
    node: Mapping[NodeId, str]

    def jobs(self, ids: Iterable[JobId]) -> str:
        return _listed([self.job(job_id) for job_id in ids])

    def nodes(self, allocation: Allocation) -> str:
        return _listed([self.node.get(node) or node for node, _ in allocation.ranks])


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown


def differences(decided: Decision, other: Decision, names: Names) -> list[Difference]:
    """One at most for each job that waits: what *other* would have done that was not *decided*."""
    ids = dict.fromkeys((*decided.starts, *other.starts))
    found = (_difference(job_id, decided, other, names) for job_id in ids)
    return [one for one in found if one]


def _difference(job_id: JobId, decided: Decision, other: Decision, names: Names) -> Difference | None:
    was, would = decided.starts.get(job_id), other.starts.get(job_id)
    if would is None:
        assert was
        words = _waits(job_id, was, other, names)
        return Difference(job_id=job_id, kind="wait", words=words)
    where = names.nodes(would.allocation)
    preempts = _preempts(would, was, names)
    if preempts:
        return Difference(job_id=job_id, kind="preempt", words=f"would have {preempts}, on {where}")
    if was is None or (was.after and not would.after):
        spared = f", and not have preempted {names.jobs(was.after)}" if was else ""
        return Difference(job_id=job_id, kind="start", words=f"would have started now on {where}{spared}")
    if _ranks(was) != _ranks(would):
        there = names.nodes(was.allocation)
        words = f"would have got {where}, not {there}"
        return Difference(job_id=job_id, kind="place", words=words)
    return None


def _preempts(would: Start, was: Start | None, names: Names) -> str:
    """Empty where it would preempt nobody else than was decided."""
    instead = was.after if was else ()
    if not would.after or set(would.after) == set(instead):
        return ""
    words = f"preempted {names.jobs(would.after)} for it"
    return f"{words}, not {names.jobs(instead)}" if instead else words


def _waits(job_id: JobId, was: Start, other: Decision, names: Names) -> str:
    reason = other.reasons.get(job_id)
    words = f"would wait: {reason.message}" if reason else "would wait"
    return f"{words}; {names.jobs(was.after)} would not have been preempted" if was.after else words


def _ranks(start: Start) -> dict[NodeId, int]:
    return dict(start.allocation.ranks)
