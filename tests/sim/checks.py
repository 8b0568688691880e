"""What must hold at every moment: looked at with each commit, each write to the database, each call to a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from math import inf
from typing import TYPE_CHECKING, Any

from scheduler.core.lifecycle import StartRun, StopRun
from scheduler.core.model import JOB, JobId, Resumption, Status
from scheduler.errors import SchedulerError
from scheduler.ports import Change, Run
from scheduler.testing.memory import Disk, MemoryJournal
from tests.sim.copies import Copies, Said
from tests.sim.faults import Trouble
from tests.sim.ledger import Ledger
from tests.sim.promises import Promises

if TYPE_CHECKING:
    from tests.sim.lives import Life
    from tests.sim.world import World

JUST_S = 30.0


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
        self.promises = Promises(world)
        self._vouched_at: dict[int, datetime] = {}
        """When each incarnation told the database for the last time that it lives."""

    @property
    def ledger(self) -> Ledger:
        """Of the journal that is in use."""
        return self._ledgers[-1][1]

    def has_said(self, job_id: JobId, version: int, status: str) -> bool:
        """Whether any journal ever did."""
        return (job_id, version, status) in self._said

    # Safety: called at each change, by whatever made it

    async def journal_call(
        self, journal: MemoryJournal, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Make the call on behalf of a life, and look at what it did."""
        leaves = method == "forget" and self._world.scenario.has_database
        leaving = _outbox_rows(journal.disk, args[0]) if leaves else []
        value = await getattr(journal, method)(*args, **kwargs)
        if method == "commit":
            self._committed(journal, args[0])
        self.tell(chain.from_iterable(self.copies.lacks(*change) for change in leaving))
        return value

    def database_changed(self, by: str) -> None:
        """After every write that reached the database, whoever made it."""
        self.tell(self.copies.compare(self._said, by))

    def start_asked(self, action: StartRun) -> None:
        """Decide, commit, act: whatever is started was written down before."""
        if self._world.cluster.is_of_another(action):
            self._world.broken(f"fence {action.fence} of job {action.job_id} is given to another run")
        known = [ledger.jobs.get(action.job_id) for _, ledger in self._ledgers]
        if action.fence > max((job.fence for job in known if job), default=0):
            self._world.broken(
                f"run {action.fence} of job {action.job_id} starts, and no journal knows of it"
            )

    def run_began(self, action: StartRun, resumed: Resumption | None) -> None:
        """L8: a run goes on from the newest that its job has saved since a person last said where to begin."""
        self.tell(self.ledger.run_began(action, resumed and resumed.checkpoint))

    def stop_asked(self, life: Life, action: StopRun) -> None:
        """R1: a run that is wanted, and was heard of lately, goes on untouched."""
        world, run = self._world, (action.job_id, action.fence)
        if not world.cluster.is_alive(run) or run in world.cluster.hidden:
            return
        job = self.ledger.jobs.get(action.job_id)
        wanted = job is not None and (job.status, job.fence, job.stop) == (Status.RUNNING, action.fence, None)
        if life is not world.life:
            self._old_life_stops(life, run, wanted)
        elif job is None or job.fence < action.fence:
            world.broken(f"run {run} is ended on a guess: the journal does not know it")
        elif wanted and (seen_at_s := world.cluster.seen_at_s.get(run)) is not None:
            silent_s = world.loop.time() - max(seen_at_s, life.began_s)
            if silent_s < world.settings.lost_after_s:
                world.broken(f"run {run} is stopped, and nobody asked; it answered {silent_s:g} s ago")

    def _old_life_stops(self, life: Life, run: Run, wanted: bool) -> None:
        """A life that wakes up beside its successor learns of it before it ends a run of its successor."""
        if life.disk is not self._world.disk and Trouble.DATABASE in self._world.scenario.troubles:
            return  # nothing that both of them could reach
        heir = self._world.life
        serves_since_s = heir.serves_since_s if heir and heir.serves else inf
        wanted = wanted and not self._has_cancelled(run[0])
        if wanted and self._world.loop.time() - serves_since_s > JUST_S:
            self._world.broken(f"run {run} is stopped by a life that was superseded long ago")

    def vouched(self, incarnation: int) -> None:
        """A scheduler told the database that it is alive."""
        self._vouched_at[incarnation] = self._world.database.clock.now()

    def request_answered(self, job_id: JobId, action: str) -> None:
        """What a front end asked for is done when the answer says so."""
        if action == "cancel" and not self._has_cancelled(job_id):
            self._world.broken(f"somebody asked to cancel job {job_id}, was told yes, and it was not done")

    def _has_cancelled(self, job_id: JobId) -> bool:
        return any(ledger.has_cancelled(job_id) for _, ledger in self._ledgers)

    def life_ended(self, error: Exception) -> None:
        """A life ends because of the world around it, never because of a mistake of its own."""
        if not isinstance(error, SchedulerError):
            self._world.broken(f"the scheduler died of {error!r}")

    # Journals come and go

    def journal_begins(self) -> None:
        self._ledgers.append(
            (self._world.disk, Ledger(self._world.cluster, self._said, is_first=not self._ledgers))
        )

    def journal_lost(self) -> None:
        """Another one is in use: empty, or a copy that somebody made before."""
        self.ledger.is_alone = False
        self.journal_begins()
        self.ledger.begin_with(self._world.disk)
        self.promises.journal_lost()

    def tampered(self, job_id: JobId) -> None:
        self.copies.written_by_hand(job_id)
        self.promises.tampered(job_id)

    def _committed(self, journal: MemoryJournal, changes: Sequence[Change]) -> None:
        ledger = next(ledger for of, ledger in self._ledgers if of is journal.disk)
        for change in changes:
            self._world.note(
                "journal", change.job.id, change.event.kind, change.job.status, f"v{change.job.version}"
            )
        self.tell(ledger.take(changes))
        self.tell(chain.from_iterable(self._stale_is_old(journal, change) for change in changes))
        known = self._world.disk.jobs.keys() | self._world.database.rows.keys()
        self.tell(f"job {job_id} was accepted, and is gone" for job_id in self.promises.accepted_ids - known)

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

    def tell(self, wrong: Iterable[str]) -> None:
        for words in wrong:
            self._world.broken(words)


def _outbox_rows(disk: Disk, seqs: Sequence[int]) -> list[tuple[JobId, int]]:
    jobs = [JOB.validate_json(disk.outbox[seq][0]) for seq in seqs if seq in disk.outbox]
    return [(job.id, job.version) for job in jobs]
