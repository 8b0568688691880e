"""Who is told by the webhook what the system did."""

from __future__ import annotations

from scheduler.ports import OutboxRow


class Listener:
    """A `scheduler.ports.Webhook` that remembers."""

    def __init__(self) -> None:
        self.heard: set[tuple[str, int]] = set()
        """(job, version)"""

    async def send(self, notice: OutboxRow) -> None:
        self.heard.add((notice.job.id, notice.job.version))
