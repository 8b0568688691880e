"""A job in the hands of whoever submitted it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from scheduler.core.model import Status
from scheduler.documents import AttemptPage, CheckpointPage, ForceStartAnswer, JobDocument, ResultDocument
from scheduler.errors import JobNotCompleted

if TYPE_CHECKING:
    from typing import Unpack

    from scheduler.client import AsyncClient, Client
    from scheduler.connection import Watch, Where


class _Handle:
    def __init__(self, client: Any, job_id: str, last: JobDocument | None = None) -> None:
        self.client = client
        self.id = job_id
        self.last = last
        """The newest document this handle has seen; `status()` fetches a newer one."""

    def __repr__(self) -> str:
        seen = f", last seen {self.last.status}" if self.last else ""
        return f"{type(self).__name__}({self.id!r}{seen})"

    def _seen(self, job: JobDocument) -> JobDocument:
        self.last = job
        return job

    def _seeing(self, watch: Watch) -> Watch:
        """Keeps `last` the newest even when the wait times out."""
        tell = watch.get("on_update") or (lambda _: None)
        return {**watch, "on_update": lambda job: tell(self._seen(job))}


class JobHandle(_Handle):
    client: Client

    def status(self) -> JobDocument:
        return self._seen(self.client.status(self.id))

    def wait(self, timeout_s: float | None = None, **watch: Unpack[Watch]) -> JobDocument:
        """Return once the job is completed, failed or cancelled; WaitTimedOut after *timeout_s*."""
        return self.client.wait(self.id, timeout_s, **self._seeing(watch))

    def result(self, timeout_s: float | None = None) -> ResultDocument:
        """Wait, and return what the job left behind.  Raises JobNotCompleted with the reason otherwise."""
        return _result(self.wait(timeout_s))

    def logs(self, follow: bool = False, **where: Unpack[Where]) -> Iterator[str]:
        return self.client.logs(self.id, follow, **where)

    def cancel(self) -> JobDocument:
        return self._seen(self.client.cancel(self.id))

    def pause(self) -> JobDocument:
        return self._seen(self.client.pause(self.id))

    def resume(self, checkpoint: str | None = None) -> JobDocument:
        return self._seen(self.client.resume(self.id, checkpoint))

    def restart(self) -> JobDocument:
        return self._seen(self.client.restart(self.id))

    def preempt(self) -> JobDocument:
        return self._seen(self.client.preempt(self.id))

    def attempts(self) -> AttemptPage:
        return self.client.attempts(self.id)

    def checkpoints(self) -> CheckpointPage:
        return self.client.checkpoints(self.id)

    def force_start(self) -> ForceStartAnswer:
        return self.client.force_start(self.id)


class AsyncJobHandle(_Handle):
    client: AsyncClient

    async def status(self) -> JobDocument:
        return self._seen(await self.client.status(self.id))

    async def wait(self, timeout_s: float | None = None, **watch: Unpack[Watch]) -> JobDocument:
        return await self.client.wait(self.id, timeout_s, **self._seeing(watch))

    async def result(self, timeout_s: float | None = None) -> ResultDocument:
        return _result(await self.wait(timeout_s))

    def logs(self, follow: bool = False, **where: Unpack[Where]) -> AsyncIterator[str]:
        return self.client.logs(self.id, follow, **where)

    async def cancel(self) -> JobDocument:
        return self._seen(await self.client.cancel(self.id))

    async def pause(self) -> JobDocument:
        return self._seen(await self.client.pause(self.id))

    async def resume(self, checkpoint: str | None = None) -> JobDocument:
        return self._seen(await self.client.resume(self.id, checkpoint))

    async def restart(self) -> JobDocument:
        return self._seen(await self.client.restart(self.id))

    async def preempt(self) -> JobDocument:
        return self._seen(await self.client.preempt(self.id))

    async def attempts(self) -> AttemptPage:
        return await self.client.attempts(self.id)

    async def checkpoints(self) -> CheckpointPage:
        return await self.client.checkpoints(self.id)

    async def force_start(self) -> ForceStartAnswer:
        return await self.client.force_start(self.id)


def _result(job: JobDocument) -> ResultDocument:
    if job.status is not Status.COMPLETED:
        raise JobNotCompleted(
            f"job {job.job_id} is {job.status}: {job.reason.message}; `scheduler logs {job.job_id}`"
        )
    return job.result or ResultDocument(output_dir=None)
