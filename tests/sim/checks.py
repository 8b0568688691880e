"""What must hold at every moment, and what must be reached once all is calm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from scheduler.core.lifecycle import StartRun, StopRun
from scheduler.core.model import JOB, JobId, Status
from scheduler.documents import JobDocument
from scheduler.errors import JobNotFound, SchedulerError
from scheduler.ports import Change
from scheduler.service import Service
from scheduler.testing.memory import Disk, MemoryJournal
from tests.sim.copies import Copies, Said
from tests.sim.ledger import Ledger
from tests.sim.rest import unrest

if TYPE_CHECKING:
    from tests.sim.lives import Answer, Life
    from tests.sim.world import World

LOOKS_EVERY_S = 10.0
JUST_S = 30.0
MAX_LOOKS = 4
"""So often may a waiting job be seen without a reason, while placement comes round every `tick_every_s`."""


class Broken(AssertionError):
    """A promise was not kept; in words."""


class Checks:
    """Looks on.  Nothing in here is used by the scheduler, and nothing of the scheduler decides here."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ledgers: list[tuple[Disk, Ledger]] = []
        self._said: set[Said] = set()
        self.journal_begins()
        self.copies = Copies(world.database)
        self.promised: set[JobId] = set()
        """Jobs whose submit was answered, and that no lost disk took away."""
        self._cancelled: set[JobId] = set()
        self._meddled: set[JobId] = set()
        self._by_key: dict[tuple[str, str], JobId] = {}
        self._seen: dict[JobId, int] = {}
        self._vouched_at: dict[int, datetime] = {}
        """When each incarnation told the database for the last time that it lives."""

    @property
    def ledger(self) -> Ledger:
        """Of the journal that is in use."""
        return self._ledgers[-1][1]

    @property
    def withdrawn(self) -> set[JobId]:
        """Jobs whose cancel was answered, and of which nobody ever asked anything else."""
        return self._cancelled - self._meddled

    # Safety: called at each change, by whatever made it

    async def journal_call(
        self, journal: MemoryJournal, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Make the call on behalf of a life, and look at what it did."""
        leaving = (
            _outbox_rows(journal.disk, args[0])
            if method == "forget" and self._world.scenario.has_database
            else []
        )
        value = await getattr(journal, method)(*args, **kwargs)
        if method == "commit":
            self._committed(journal, args[0])
        for job_id, version in leaving:
            self._tell(self.copies.lacks(job_id, version))
        return value

    def database_changed(self, by: str) -> None:
        """After every write that reached the database, whoever made it."""
        self._tell(self.copies.compare(self._said, by))

    def start_asked(self, action: StartRun) -> None:
        """Decide, commit, act: whatever is started was written down before."""
        known = [ledger.jobs.get(action.job_id) for _, ledger in self._ledgers]
        if action.fence > max((job.fence for job in known if job), default=0):
            self._world.broken(
                f"run {action.fence} of job {action.job_id} starts, and no journal knows of it"
            )

    def stop_asked(self, life: Life, action: StopRun) -> None:
        """R1: a run that is wanted, and was heard of lately, goes on untouched."""
        world, run = self._world, (action.job_id, action.fence)
        if life is not world.life or not world.cluster.is_alive(run) or run in world.cluster.hidden:
            return
        job, seen_at_s = self.ledger.jobs.get(action.job_id), world.cluster.seen_at_s.get(run)
        if job is None:
            if self.copies.wants(run):
                world.broken(f"run {run} is stopped, though the row of its job says that it runs")
        elif (job.status, job.fence, job.stop) == (
            Status.RUNNING,
            action.fence,
            None,
        ) and seen_at_s is not None:
            silent_s = world.loop.time() - max(seen_at_s, life.began_s)
            if silent_s < world.settings.lost_after_s:
                world.broken(f"run {run} is stopped, and nobody asked; it answered {silent_s:g} s ago")

    def vouched(self, incarnation: int) -> None:
        """A scheduler told the database that it is alive."""
        self._vouched_at[incarnation] = self._world.database.clock.now()

    def request_answered(self, job_id: JobId, action: str) -> None:
        """What a front end asked for is done when the answer says so."""
        if action == "cancel" and not any(ledger.has_cancelled(job_id) for _, ledger in self._ledgers):
            self._world.broken(f"somebody asked to cancel job {job_id}, was told yes, and it was not done")

    def life_ended(self, error: Exception) -> None:
        """A life ends because of the world around it, never because of a mistake of its own."""
        if not isinstance(error, SchedulerError):
            self._world.broken(f"the scheduler died of {error!r}")

    # What people were told

    def accepted(self, job_id: JobId, user: str, key: str | None, answer: Answer) -> None:
        if answer.life is None or answer.life.disk is not self._world.disk:
            return
        self.promised.add(job_id)
        if key and self._by_key.setdefault((user, key), job_id) != job_id:
            self._world.broken(f"key {key} of {user} made jobs {self._by_key[user, key]} and {job_id}")

    def cancelled(self, job_id: JobId, answer: Answer) -> None:
        if answer.value is not None and answer.life and answer.life.disk is self._world.disk:
            self._cancelled.add(job_id)

    def meddled(self, job_id: JobId) -> None:
        """Somebody asks for something that may undo a cancel, or is undone by it."""
        self._meddled.add(job_id)

    def newest_seen(self, job_id: JobId) -> int:
        """The newest version that anybody was shown; 0 when the job was accepted, and not seen; -1: neither."""
        return self._seen.get(job_id, 0 if job_id in self.promised else -1)

    def saw(self, job_id: JobId, before: int, answer: Answer) -> None:
        """What was accepted is there, and nobody sees a job go back."""
        if (
            answer.life is not self._world.life
            or answer.life is None
            or answer.life.disk is not self._world.disk
        ):
            return
        if isinstance(answer.error, JobNotFound) and before >= 0 and self.newest_seen(job_id) >= 0:
            self._world.broken(f"job {job_id} was accepted, and nobody finds it: {answer.error}")
        if isinstance(answer.value, JobDocument):
            if answer.value.version < min(before, self.newest_seen(job_id)):
                self._world.broken(
                    f"job {job_id} was at version {before}, and is shown at {answer.value.version}"
                )
            self._seen[job_id] = max(answer.value.version, self._seen.get(job_id, 0))

    # Rest

    async def watch_the_line(self) -> None:
        """L5: who waits knows why, a few passes of placement later at most."""
        unexplained: dict[tuple[Life | None, JobId, int], int] = {}
        while True:
            await asyncio.sleep(LOOKS_EVERY_S)
            life, before = self._world.life, unexplained
            service = life.service if life and life.serves and not life.process.is_frozen else None
            unexplained = {
                (life, job.id, job.version): before.get((life, job.id, job.version), 0) + 1
                for job in (service.registry.queued() if service else ())
                if service and job.id not in service.view.blocked
            }
            if any(looks > MAX_LOOKS for looks in unexplained.values()):
                self._world.broken(f"nobody can say why these wait: {sorted(one[1] for one in unexplained)}")

    async def come_to_rest(self, patience_s: float) -> None:
        """All agree in time; then nothing moves any more, and a restart finds nothing to do."""
        world = self._world
        await self._reach(lambda: unrest(world), patience_s)
        await self._nothing_to_repair()
        num_changes = world.disk.last_seq
        await asyncio.sleep(2 * world.settings.reconcile_every_s)
        assert world.life
        world.life.process.kill()
        await asyncio.sleep(60.0)
        self._tell(unrest(world))
        if world.disk.last_seq != num_changes:
            world.broken("all was at rest, and then something changed by itself")

    async def refused_jobs_hold_up_nobody(self, patience_s: float) -> None:
        """While the database refuses some jobs, all the others come to rest."""
        refused = self._world.poisoned

        def others() -> list[str]:
            left = [words for words in unrest(self._world) if not any(job_id in words for job_id in refused)]
            return [words for words in left if "the outbox" not in words and "the relay loop" not in words]

        await self._reach(others, patience_s)

    async def _reach(self, left_over: Callable[[], list[str]], patience_s: float) -> None:
        until_s = self._world.loop.time() + patience_s
        while left := left_over():
            if self._world.loop.time() > until_s:
                self._world.broken(f"no rest within {patience_s:g} s: {'; '.join(left)}")
            await asyncio.sleep(LOOKS_EVERY_S)

    async def _nothing_to_repair(self) -> None:
        """R7"""
        for dry_run in (True, False, False):
            answer = await self._world.ask(
                f"reconcile {dry_run=}", partial(Service.reconcile, dry_run=dry_run)
            )
            if answer.value is None or answer.value.repairs:
                self._world.broken(f"at rest, reconcile({dry_run=}) gave {answer}")

    # Journals come and go

    def journal_begins(self) -> None:
        self._ledgers.append(
            (self._world.disk, Ledger(self._world.cluster, self._said, is_first=not self._ledgers))
        )

    def journal_lost(self) -> None:
        """What only the disk knew is gone, and nobody is to blame."""
        self.ledger.is_alone = False
        self.journal_begins()
        self.promised &= self._world.database.rows.keys()
        self._cancelled.clear()
        self._by_key.clear()
        self._seen.clear()

    def tampered(self, job_id: JobId) -> None:
        """With a row that was all that was left of a job, the job may be lost."""
        self.copies.written_by_hand(job_id)
        if job_id not in self._world.disk.jobs:
            self.promised.discard(job_id)
            self._seen.pop(job_id, None)

    def _committed(self, journal: MemoryJournal, changes: Sequence[Change]) -> None:
        ledger = next(ledger for of, ledger in self._ledgers if of is journal.disk)
        for change in changes:
            self._world.note(
                "journal", change.job.id, change.event.kind, change.job.status, f"v{change.job.version}"
            )
        self._tell(ledger.take(changes))
        self._tell(chain.from_iterable(self._stale_is_old(journal, change) for change in changes))
        known = self._world.disk.jobs.keys() | self._world.database.rows.keys()
        self._tell(f"job {job_id} was accepted, and is gone" for job_id in self.promised - known)

    def _stale_is_old(self, journal: MemoryJournal, change: Change) -> Iterator[str]:
        """R2, R3: nobody vouched for the row, and nobody touched it, for as long as the settings say."""
        row = self._world.database.rows.get(change.job.id)
        if change.event.reason.code != "stale" or row is None:
            return
        now, touched_at = self._world.database.clock.now(), datetime.fromisoformat(row["updated_at"])
        vouched_at = [
            at for by, at in self._vouched_at.items() if by < journal.incarnation and row["version"]
        ]
        age_s = (now - max([touched_at, *vouched_at])).total_seconds()
        is_just_touched = (now - touched_at).total_seconds() < JUST_S  # perhaps after it was judged
        if age_s < self._world.settings.stale_after_s and not is_just_touched:
            yield f"job {change.job.id} is failed as stale, and was vouched for {age_s:g} s ago"

    def _tell(self, wrong: Iterable[str]) -> None:
        for words in wrong:
            self._world.broken(words)


def _outbox_rows(disk: Disk, seqs: Sequence[int]) -> list[tuple[JobId, int]]:
    jobs = [JOB.validate_json(disk.outbox[seq][0]) for seq in seqs if seq in disk.outbox]
    return [(job.id, job.version) for job in jobs]
