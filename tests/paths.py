"""`python -m tests.paths`: the files of `scheduler/` that four operations pass, and how often they hop between them.

Whoever wants to understand a submit has to open these files.  The engine runs on the fakes of `scheduler/testing`:
what stands there, or is called from there, is an adapter's own business and is not counted.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from scheduler.core.model import Fence, JobId
from scheduler.testing.fake_runner import COMPLETED
from tests.unit.test_service import World, a_loop

ROOT = Path(__file__).resolve().parents[1]
HOUSE, FAKES = (f"{ROOT / folder}/" for folder in ("scheduler", "scheduler/testing"))
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- paths: made by `python -m tests.paths --write` -->", "<!-- /paths -->"


@dataclass
class FilesPassed:
    """The file of each call, in order."""

    calls: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[str]:
        """Each once, in the order in which they are entered."""
        return list(dict.fromkeys(self.calls))

    @property
    def hops(self) -> int:
        """Calls into another file than the call before."""
        return sum(one != then for one, then in zip(self.calls, self.calls[1:], strict=False))

    @contextmanager
    def recorded(self) -> Iterator[None]:
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(HOUSE) and not _is_below_a_fake(frame):
            self.calls.append(file.removeprefix(f"{ROOT}/"))


def _is_below_a_fake(frame: FrameType | None) -> bool:
    while frame:
        if frame.f_code.co_filename.startswith(FAKES):
            return True
        frame = frame.f_back
    return False


async def paths() -> dict[str, FilesPassed]:
    """Of one job: its submit, the tick that starts it, a question, and the end of its run."""
    world, walked = World(), dict[str, FilesPassed]()
    await world.life()
    await world.ended_run()  # so that nothing is only there because it is the first time

    async def walk(name: str, step: Callable[[], Awaitable[Any]]) -> Any:
        walked[name] = FilesPassed()
        with walked[name].recorded():
            return await step()

    spec = a_loop()
    job_id = await walk("submit", lambda: world.submit(spec))
    await walk("tick", world.service.scheduling.once)
    await world.settle()
    await walk("status", lambda: world.status(job_id))
    world.runner.end((JobId(job_id), Fence(1)), COMPLETED)
    await walk("ended run", _turns)
    assert await world.status(job_id) == "completed"
    return walked


async def _turns() -> None:
    """More turns of the event loop than the end of a run takes."""
    for _ in range(20):
        await asyncio.sleep(0)


def section(walked: dict[str, FilesPassed]) -> str:
    """As it stands in docs/architecture.md."""
    parts = [
        "\n".join(
            [
                f"**{name[0].upper()}{name[1:]}**: {len(path.files)} files",
                "",
                *(f"{number}. `{file}`" for number, file in enumerate(path.files, 1)),
            ]
        )
        for name, path in walked.items()
    ]
    return "\n\n".join(parts)


def with_section(page: str, section: str) -> str:
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{section}\n{END}{after}"


def main() -> None:
    """Prints the paths; `--write` puts them into the page."""
    walked = asyncio.run(paths())
    made = section(walked)
    if "--write" in sys.argv:
        PAGE.write_text(with_section(PAGE.read_text(), made))
    print(made)
    print(*(f"{name}: {len(path.files)} files, {path.hops} hops" for name, path in walked.items()), sep="\n")


if __name__ == "__main__":
    main()
