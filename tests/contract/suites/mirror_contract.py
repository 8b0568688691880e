"""What every mirror promises, whatever it is made of."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from scheduler.ports import Mirror
from tests.contract.suites.mirror_reads import MirrorReads
from tests.contract.suites.mirror_store import MirrorStore
from tests.contract.suites.mirror_writes import MirrorWrites
from tests.contract.suites.upkeep_contract import MirrorUpkeep


class MirrorContract(MirrorWrites, MirrorReads, MirrorUpkeep):
    """Subclass it and give a `store` fixture."""

    @pytest_asyncio.fixture
    async def mirror(self, store: MirrorStore) -> AsyncIterator[Mirror]:
        """Claimed, as incarnation 1."""
        async with store.open() as mirror:
            await mirror.claim(1)
            yield mirror
