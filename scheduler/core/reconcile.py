"""What the registry wants against what is there: level-triggered, and pure."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from scheduler.core.model import Fence, JobId

Run = tuple[JobId, Fence]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Passive first: what we had not seen.  Then what must be put right.  Each in order of job and fence."""

    attach: tuple[Run, ...] = ()
    """Wanted and alive, and nobody follows them yet."""
    lost: tuple[Run, ...] = ()
    """Wanted and not there.  A run that is only just being started is among them."""
    orphans: tuple[Run, ...] = ()
    """There and not wanted, such as a run whose job has a newer fence.  To be stopped."""

    @property
    def is_empty(self) -> bool:
        return not (self.attach or self.lost or self.orphans)


def reconcile(wanted: Mapping[JobId, Fence], live: Set[Run], attached: Set[Run] = frozenset()) -> Plan:
    """Compare the running jobs, each with its newest fence, with the runs that exist now.

    Depends on nothing but its arguments: once the plan has been carried out, the next one is empty.
    """
    runs = set(wanted.items())
    return Plan(
        attach=tuple(sorted((runs & live) - attached)),
        lost=tuple(sorted(runs - live)),
        orphans=tuple(sorted(live - runs)),
    )
