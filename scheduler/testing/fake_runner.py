"""A runner whose runs end when the test says so.  Held to the same promises as the real one by RunnerContract."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime

from scheduler.api.metrics import MetricsDocument
from scheduler.core.checkpoints import Checkpoint, checkpoint_id, lineage
from scheduler.core.lifecycle import StartRun, StopRun
from scheduler.core.model import (
    Cause,
    CheckpointId,
    Ending,
    Fence,
    Job,
    JobId,
    Json,
    Node,
    NodeId,
    Outcome,
    Phase,
    Reason,
    Resumption,
    Saved,
    StopKind,
)
from scheduler.errors import RunUnreachable
from scheduler.ports import LogPart, Observation, Run
from scheduler.runs.metric_history import Reported, reported_by
from scheduler.testing.clock import NOON

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
    tells: dict[Run, Json] = field(default_factory=dict)
    """Fields of the observation of a run, beside those it fills by itself."""
    said: dict[Run, list[Json]] = field(default_factory=dict)
    """The progress lines of a run."""
    refuses: Exception | None = None
    """Raised by the next `start`."""
    deaf: bool = False
    """No run hears that it is to stop."""
    _alive: dict[Run, asyncio.Event] = field(default_factory=dict)
    _final: dict[Run, Outcome] = field(default_factory=dict)
    _resumed: dict[Run, Resumption] = field(default_factory=dict)
    _checkpoints: dict[JobId, list[Checkpoint]] = field(default_factory=dict)

    async def start(self, action: StartRun) -> None:
        action = pickle.loads(pickle.dumps(action))
        run = (action.job_id, action.fence)
        if self.refuses:
            error, self.refuses = self.refuses, None
            raise error
        if run not in self._alive and run not in self._final:
            self.started.append(action)
            self._alive[run] = asyncio.Event()
            self._begin(action)

    async def stop(self, action: StopRun) -> None:
        self.stopped.append(action)
        run = (action.job_id, action.fence)
        if run in self._alive and not self.deaf:
            lost = replace(LOST, reason=action.why) if action.why else LOST
            self.end(run, lost if action.kind is StopKind.CANCEL else STOPPED)

    async def wait(self, run: Run) -> Outcome:
        if gone := self._alive.get(run):
            await gone.wait()
        return self._final.get(run, LOST)

    async def observe(self, run: Run) -> Observation:
        if run not in self._alive or run in self.hidden:
            raise RunUnreachable(f"run {run} does not answer")
        said = Observation(
            phase=Phase.TRAINING,
            phases={},
            progress=self.progress(run),
            resumed=self._resumed.get(run),
            saved=self.saved(run),
        )
        return replace(said, **self.tells.get(run, {}))

    async def examine(self, run: Run) -> Json:
        return {"stacks": {"0": "in step()"}, "logs": {"0": ["the last line"]}}

    async def checkpoints(self, job_id: JobId) -> list[Checkpoint]:
        return list(self._checkpoints.get(job_id, ()))

    async def live(self) -> frozenset[Run]:
        return frozenset(self._alive)

    async def recall(self, run: Run) -> Job | None:
        return next((one.job for one in self.started if (one.job_id, one.fence) == run), None)

    async def newest(self, job_id: JobId) -> Fence:
        return max((one.fence for one in self.started if one.job_id == job_id), default=Fence(0))

    async def read_log(self, run: Run, rank: int, offset: int, limit: int) -> LogPart:
        return LogPart("", 0, 0, is_end=True)

    async def metrics(self, job_id: JobId, points: int) -> MetricsDocument:
        return self._told_by(job_id).document(job_id, points)

    async def trends(self, job_ids: Collection[JobId], points: int) -> dict[JobId, list[float]]:
        found = {job_id: self._told_by(job_id).table.trend(points) for job_id in job_ids}
        return {job_id: values for job_id, values in found.items() if values}

    async def nodes(self) -> tuple[Node, ...]:
        return self.nodes_now

    # What a test does to the world

    def progress(self, run: Run) -> Json | None:
        return {"step": 1}

    def save(self, run: Run, step: int | None = None, at: datetime = NOON) -> CheckpointId:
        """The run completes a checkpoint."""
        job_id, fence = run
        number = len(self._of(run)) + 1
        checkpoint = Checkpoint(
            id=checkpoint_id(fence, number),
            fence=fence,
            number=number,
            step=step,
            at=at,
            seconds=0.1,
            num_bytes=1000,
            num_files=1,
            metrics={},
            path="",
        )
        self._checkpoints.setdefault(job_id, []).append(checkpoint)
        return checkpoint.id

    def saved(self, run: Run) -> Saved | None:
        """The newest checkpoint of the run."""
        if not (mine := self._of(run)):
            return None
        return Saved(checkpoint=mine[-1].id, step=mine[-1].step, at=mine[-1].at)

    def end(self, run: Run, outcome: Outcome) -> None:
        """The run leaves its final record, with what it saved and where it had gone on, and is gone."""
        self._final[run] = replace(
            outcome,
            progress=outcome.progress or self.tells.get(run, {}).get("progress"),
            resumed=outcome.resumed or self._resumed.get(run),
            saved=outcome.saved or self.saved(run),
        )
        self._alive.pop(run).set()

    def adopt(self, run: Run) -> None:
        """A run that nobody here started: an orphan."""
        self._alive[run] = asyncio.Event()

    def _told_by(self, job_id: JobId) -> Reported:
        runs = sorted(run for run in self.said if run[0] == job_id)
        return reported_by({fence: self.said[job_id, fence] for _, fence in runs})

    def _begin(self, action: StartRun) -> None:
        """Go on from the newest checkpoint that continues the job."""
        earlier = lineage(self._checkpoints.get(action.job_id, ()), action.origin)
        if earlier:
            newest = earlier[0]
            self._resumed[action.job_id, action.fence] = Resumption(
                checkpoint=newest.id, step=newest.step, checked=("1 file, its size",)
            )

    def _of(self, run: Run) -> list[Checkpoint]:
        return [one for one in self._checkpoints.get(run[0], ()) if one.fence == run[1]]
