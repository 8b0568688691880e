"""Another policy, asked about the same scene on each tick: where it would have decided otherwise.  It decides nothing."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from scheduler.api.shadow import ShadowDifference, ShadowDocument
from scheduler.core.dependencies import Parents
from scheduler.core.events import Event
from scheduler.core.model import Job, JobId
from scheduler.core.policy import Decision
from scheduler.core.policy_choice import PolicyChoice
from scheduler.core.shadow import KINDS, Difference, Kind, Names, differences
from scheduler.engine.cluster import Cluster
from scheduler.engine.policies import Fair, Fifo, policy_of
from scheduler.engine.projects import Projects
from scheduler.engine.registry import Registry
from scheduler.ports import Clock, Journal
from scheduler.settings import Settings

log = logging.getLogger(__name__)

REST = 19
"""After each pass it is not asked for so many times as long as that took: a twentieth of a processor at the most."""
RECENT = 50
"""Differences that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A difference that lasts, or lasted, from one pass to another."""

    difference: Difference
    name: str
    """Of the job."""
    at: datetime
    until: datetime | None = None


class NoShadow:
    """No other policy is asked."""

    async def recall(self) -> None:
        pass

    def look(self, waiting: Sequence[Job], parents: Parents, decided: Decision, now: datetime) -> None:
        pass

    def committed(self, before: Job | None, after: Job, event: Event | None) -> None:
        pass

    def problem(self) -> str | None:
        return None

    def document(self) -> ShadowDocument | None:
        return None


class Shadow:
    """Has all that it needs for itself, and writes nothing down.  No fault of it reaches who calls it."""

    def __init__(
        self,
        choice: PolicyChoice,
        other: Fair | Fifo,
        in_charge: Fair | Fifo,
        registry: Registry,
        cluster: Cluster,
        clock: Clock,
    ) -> None:
        """*other*: shares nothing that changes with the policy *in_charge*."""
        self.choice, self._other, self._in_charge = choice, other, in_charge
        self._registry, self._cluster, self._clock = registry, cluster, clock
        self._since = clock.now()
        self._rests_until_s: float | None = None
        self._lasting: dict[tuple[JobId, Kind], Seen] = {}
        self._past: deque[Seen] = deque(maxlen=RECENT)
        self._fault: str | None = None
        self.passes = self.skipped = self.faults = 0
        self.counts: Counter[Kind] = Counter()

    async def recall(self) -> None:
        """As the policy in charge begins: with what an earlier life measured."""
        try:
            await self._other.recall()
        except Exception as error:  # noqa: BLE001  a shadow must never stop what it follows
            self._failed(error)

    def look(self, waiting: Sequence[Job], parents: Parents, decided: Decision, now: datetime) -> None:
        """Compare what was *decided* of *waiting*, before it is carried out, with what the other policy would do."""
        began_s = self._clock.monotonic_s()
        if self._rests_until_s is not None and began_s < self._rests_until_s:
            self.skipped += 1
            return
        try:
            self._compare(waiting, parents, decided, now)
            self._fault = None
        except Exception as error:  # noqa: BLE001  as above
            self._failed(error)
        took_s = self._clock.monotonic_s() - began_s
        self._rests_until_s = began_s + (1 + REST) * took_s

    def committed(self, before: Job | None, after: Job, event: Event | None) -> None:
        """Called after each commit."""
        try:
            self._other.committed(before, after, event)
        except Exception as error:  # noqa: BLE001  as above
            self._failed(error)

    def problem(self) -> str | None:
        """In words, as long as the newest pass failed."""
        if self._fault is None:
            return None
        return (
            f"the policy in shadow ({self.choice}) failed {self.faults} times, last with {self._fault}; what is decided "
            "does not depend on it. Unset SCHEDULER_POLICY_SHADOW to be rid of it, and report this"
        )

    def document(self) -> ShadowDocument:
        newest = sorted(self._lasting.values(), key=_moment, reverse=True)
        return ShadowDocument(
            policy=str(self.choice),
            since=self._since,
            passes=self.passes,
            skipped=self.skipped,
            differences={kind: self.counts[kind] for kind in KINDS},
            recent=[_document(seen) for seen in (*newest, *reversed(self._past))][:RECENT],
            faults=self.faults,
            problem=self.problem(),
        )

    def _compare(self, waiting: Sequence[Job], parents: Parents, decided: Decision, now: datetime) -> None:
        if isinstance(self._other, Fair) and isinstance(self._in_charge, Fair):
            self._other.ledger = self._in_charge.ledger  # what was spent was really spent
        other = self._other.decide(waiting, parents, now) if waiting else decided
        self._see(differences(decided, other, self._names()), now)
        self.passes += 1

    def _see(self, found: Iterable[Difference], now: datetime) -> None:
        """One that goes on is counted once."""
        lasting: dict[tuple[JobId, Kind], Seen] = {}
        for one in found:
            key = one.job_id, one.kind
            known = self._lasting.get(key)
            if known is None:
                self.counts[one.kind] += 1
                known = Seen(difference=one, name=self._name(one.job_id), at=now)
            lasting[key] = replace(known, difference=one)
        gone = (seen for key, seen in self._lasting.items() if key not in lasting)
        self._past.extend(replace(seen, until=now) for seen in sorted(gone, key=_moment))
        self._lasting = lasting

    def _names(self) -> Names:
        return Names(job=self._name, node={node.id: node.name for node in self._cluster.nodes})

    def _name(self, job_id: JobId) -> str:
        job = self._registry.get(job_id)
        return job.spec.name if job else job_id

    def _failed(self, error: Exception) -> None:
        self.faults += 1
        self._fault = f"{type(error).__name__}: {error}"[:200]
        if self.faults == 1:
            log.error("the policy in shadow failed; what is decided does not depend on it", exc_info=error)


def shadow_of(
    in_charge: Fair | Fifo,
    cluster: Cluster,
    registry: Registry,
    projects: Projects,
    journal: Journal,
    clock: Clock,
    settings: Settings,
) -> Shadow | NoShadow:
    """As `settings.policy_shadow` has it.  The journal is read, and never written to: only who is in charge spends."""
    choice = settings.policy_shadow
    if choice is None:
        return NoShadow()
    other = policy_of(choice, cluster, registry, projects, journal, clock)
    return Shadow(choice, other, in_charge, registry, cluster, clock)


def _moment(seen: Seen) -> datetime:
    return seen.at


def _document(seen: Seen) -> ShadowDifference:
    return ShadowDifference(
        job_id=seen.difference.job_id,
        name=seen.name,
        kind=seen.difference.kind,
        message=seen.difference.words,
        at=seen.at,
        until=seen.until,
    )
