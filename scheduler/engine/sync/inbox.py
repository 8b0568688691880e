"""What front ends wrote into the database: new jobs, and requests."""

from __future__ import annotations

import logging
from dataclasses import replace

from scheduler.core.commands import action_in_database
from scheduler.core.model import Status
from scheduler.core.reconcile import Row
from scheduler.engine.commands import Commands
from scheduler.engine.job_store import JobStore
from scheduler.engine.periodic import all_of
from scheduler.engine.sync.adoption import Adoption
from scheduler.engine.sync.session import MirrorSession
from scheduler.errors import SchedulerError
from scheduler.ports import Rows, Runner

log = logging.getLogger(__name__)

PAGE = 500


class Inbox:
    """Looks for what front ends wrote: new jobs, and requests.  One small query when there is nothing."""

    def __init__(
        self,
        session: MirrorSession | None,
        store: JobStore,
        runner: Runner,
        adoption: Adoption,
        commands: Commands,
    ) -> None:
        self._session, self._store, self._runner, self._adoption = session, store, runner, adoption
        self._commands = commands

    async def once(self) -> int:
        """Returns how many rows were dealt with.  What was dealt with and not mirrored yet is passed over."""
        if self._session is None:
            return 0
        mirror, after, done = await self._session.claimed(), None, 0
        while True:
            page = await mirror.inbox(after, PAGE)
            done += await self._deal_with(page)
            if len(page.rows) < PAGE:
                return done
            after = (page.rows[-1].updated_at, page.rows[-1].id)

    async def _deal_with(self, page: Rows) -> int:
        asked = [row for row in page.rows if row.requested_action]
        for row in asked:
            await self._take_request(row)
        new = [row for row in page.rows if row.status is Status.PENDING and not row.version]
        unknown = [row for row in new if await self._store.find(row.id) is None]
        if unknown:
            await self._adopt(replace(page, rows=tuple(unknown)))
        return len(asked) + len(unknown)

    async def _adopt(self, rows: Rows) -> None:
        live = await self._runner.live()
        judged = self._adoption.judge(rows, live)
        await all_of(self._adoption.carry_out(row, verdict, "inbox") for row, verdict in judged)

    async def _take_request(self, row: Row) -> None:
        """Act, then say so: a crash in between does it again, and doing it again changes nothing."""
        action, by = str(row.requested_action), f"user {row.user_id}" if row.user_id else "front end"
        refusal = None
        try:
            await self._commands.act(row.id, action_in_database(action), by)
        except SchedulerError as error:
            if error.http_status >= 500:
                raise
            refusal = error.message
            log.info("job %s: %s asked by %s was refused: %s", row.id, action, by, refusal)
        assert self._session is not None
        await (await self._session.claimed()).answer(row.id, action, refusal)
