"""What every journal promises, whatever it is made of."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from scheduler.ports import Journal
from tests.contract.suites.journal_commits import JournalCommits
from tests.contract.suites.journal_lives import JournalLives
from tests.contract.suites.journal_outbox import JournalOutbox
from tests.contract.suites.journal_pages import JournalPages
from tests.contract.suites.journal_projects import JournalProjects
from tests.contract.suites.journal_reads import JournalReads
from tests.contract.suites.journal_store import Store
from tests.contract.suites.journal_usage import JournalUsage
from tests.contract.suites.upkeep_contract import JournalUpkeep


class JournalContract(
    JournalCommits,
    JournalReads,
    JournalPages,
    JournalOutbox,
    JournalProjects,
    JournalUsage,
    JournalLives,
    JournalUpkeep,
):
    """Subclass it and give a `store` fixture."""

    @pytest_asyncio.fixture
    async def journal(self, store: Store) -> AsyncIterator[Journal]:
        async with store.open() as journal:
            yield journal
