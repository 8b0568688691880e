"""A runner whose runs end when the test says so.  Held to the same promises as the real one by RunnerContract."""

from __future__ import annotations

import asyncio
import pickle
from dataclasses import dataclass, field

from scheduler.core.lifecycle import StartRun, StopRun
from scheduler.core.model import Cause, Ending, Json, Node, NodeId, Outcome, Phase, Reason, StopKind
from scheduler.errors import RunUnreachable
from scheduler.ports import LogPart, Observation, Run

COMPLETED = Outcome(ending=Ending.COMPLETED, reason=Reason(code="completed", message="every rank returned"))
STOPPED = Outcome(
    ending=Ending.STOPPED, reason=Reason(code="stopped", message="the loop saved and returned, as asked")
)
LOST = Outcome(
    ending=Ending.LOST,
    cause=Cause.INFRASTRUCTURE,
    reason=Reason(code="run_lost", message="the actor of the run died"),
)


def failed(message: str = "rank 0 raised ValueError: boom") -> Outcome:
    return Outcome(ending=Ending.FAILED, cause=Cause.USER, reason=Reason(code="loop_failed", message=message))


@dataclass
class FakeRunner:
    """Runs live here, outside of any scheduler: give the same one to the next life after a crash."""

    nodes_now: tuple[Node, ...] = (Node(id=NodeId("node-1"), name="node-1", cpus=4.0),)
    started: list[StartRun] = field(default_factory=list)
    stopped: list[StopRun] = field(default_factory=list)
    hidden: set[Run] = field(default_factory=set)
    """Alive, but not answering."""
    refuses: Exception | None = None
    """Raised by the next `start`."""
    _alive: dict[Run, asyncio.Event] = field(default_factory=dict)
    _final: dict[Run, Outcome] = field(default_factory=dict)

    async def start(self, action: StartRun) -> None:
        action = pickle.loads(pickle.dumps(action))
        run = (action.job_id, action.fence)
        if self.refuses:
            error, self.refuses = self.refuses, None
            raise error
        if run not in self._alive and run not in self._final:
            self.started.append(action)
            self._alive[run] = asyncio.Event()

    async def stop(self, action: StopRun) -> None:
        self.stopped.append(action)
        run = (action.job_id, action.fence)
        if run in self._alive:
            self.end(run, LOST if action.kind is StopKind.CANCEL else STOPPED)

    async def wait(self, run: Run) -> Outcome:
        if gone := self._alive.get(run):
            await gone.wait()
        return self._final.get(run, LOST)

    async def observe(self, run: Run) -> Observation:
        if run not in self._alive or run in self.hidden:
            raise RunUnreachable(f"run {run} does not answer")
        return Observation(phase=Phase.TRAINING, phases={}, progress=self.progress(run))

    async def live(self) -> frozenset[Run]:
        return frozenset(self._alive)

    async def read_log(self, run: Run, rank: int, offset: int, limit: int) -> LogPart:
        return LogPart("", 0, 0, is_end=True)

    async def nodes(self) -> tuple[Node, ...]:
        return self.nodes_now

    # What a test does to the world

    def progress(self, run: Run) -> Json | None:
        return {"step": 1}

    def end(self, run: Run, outcome: Outcome) -> None:
        """The run leaves its final record and is gone."""
        self._final[run] = outcome
        self._alive.pop(run).set()

    def adopt(self, run: Run) -> None:
        """A run that nobody here started: an orphan."""
        self._alive[run] = asyncio.Event()
