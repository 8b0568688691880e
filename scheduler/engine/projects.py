from scheduler.core.contender import Share


class Projects:
    def __init__(self, journal, registry) -> None:
        self._journal = journal
        self.shares: dict[str, Share] = {}

    async def load(self) -> None:
        self.shares = await self._journal.projects()
