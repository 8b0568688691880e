"""What people were told, and may hold the scheduler to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scheduler.api.jobs import JobDocument
from scheduler.core.model import JobId
from scheduler.errors import JobNotFound

if TYPE_CHECKING:
    from tests.sim.lives import Answer
    from tests.sim.world import World


class Promises:
    """Given with an answer, by a scheduler that has the journal in use; void when that is lost."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.accepted_ids: set[JobId] = set()
        """Jobs whose submit was answered, and that no lost disk took away."""
        self._cancelled: set[JobId] = set()
        self._meddled: set[JobId] = set()
        self._by_key: dict[tuple[str, str], JobId] = {}
        self._seen: dict[JobId, int] = {}

    @property
    def withdrawn(self) -> set[JobId]:
        """Jobs whose cancel was answered, and of which nobody ever asked anything else."""
        return self._cancelled - self._meddled

    def accepted(self, job_id: JobId, user: str, key: str | None, answer: Answer) -> None:
        if not self._holds(answer):
            return
        self.accepted_ids.add(job_id)
        if key and self._by_key.setdefault((user, key), job_id) != job_id:
            self._world.broken(f"key {key} of {user} made jobs {self._by_key[user, key]} and {job_id}")

    def cancelled(self, job_id: JobId, answer: Answer) -> None:
        if answer.value is not None and self._holds(answer):
            self._cancelled.add(job_id)

    def meddled(self, job_id: JobId) -> None:
        """Somebody asks for something that may undo a cancel, or is undone by it."""
        self._meddled.add(job_id)

    def newest_seen(self, job_id: JobId) -> int:
        """The newest version that anybody was shown; 0 when the job was accepted, and not seen; -1: neither."""
        return self._seen.get(job_id, 0 if job_id in self.accepted_ids else -1)

    def saw(self, job_id: JobId, before: int, answer: Answer) -> None:
        """What was accepted is there, and nobody sees a job go back.  *before*: the newest seen before they asked."""
        if not self._holds(answer) or answer.life is not self._world.life:
            return
        before = min(before, self.newest_seen(job_id))
        if isinstance(answer.error, JobNotFound) and before >= 0:
            self._world.broken(f"job {job_id} was accepted, and nobody finds it: {answer.error}")
        if isinstance(answer.value, JobDocument):
            version = answer.value.version
            if version < before:
                self._world.broken(f"job {job_id} was at version {before}, and is shown at {version}")
            self._seen[job_id] = max(version, self._seen.get(job_id, 0))

    def journal_lost(self) -> None:
        """What only the disk knew is gone, and nobody is to blame."""
        self.accepted_ids &= self._world.database.rows.keys() | self._world.disk.jobs.keys()
        self._cancelled.clear()
        self._by_key.clear()
        self._seen.clear()

    def tampered(self, job_id: JobId) -> None:
        """With a row that was all that was left of a job, the job may be lost."""
        if job_id not in self._world.disk.jobs:
            self.accepted_ids.discard(job_id)
            self._seen.pop(job_id, None)

    def _holds(self, answer: Answer) -> bool:
        return answer.life is not None and answer.life.disk is self._world.disk
