"""The actor that owns one run: it calls `TorchTrainer.fit()` and leaves the final record."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from scheduler.core.lifecycle import StartRun
from scheduler.core.model import Cause, Ending, Fence, Gang, JobId, Outcome, Phase, Reason
from scheduler.ports import Observation
from scheduler.processes import end_here
from scheduler.rank import RankPlan, run_rank
from scheduler.run_folder import ProgressReader, RunFolder

log = logging.getLogger("scheduler.run")

KEEP_CHECKPOINTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """All that a run's actor is told.  `function` is the loop as `module:function`."""

    start: StartRun
    storage: Path
    function: str
    requested_at_s: float

    @property
    def folder(self) -> RunFolder:
        return RunFolder.of(self.storage, self.start.job_id, self.start.fence)


def run_name(job_id: JobId, fence: Fence) -> str:
    """The name under which a run is found again, by the scheduler and on the Ray dashboard."""
    return f"run-{job_id}-{fence}"


def run_of(name: str) -> tuple[JobId, Fence] | None:
    head, _, fence = name.rpartition("-")
    if not head.startswith("run-") or not fence.isdigit():
        return None
    return JobId(head.removeprefix("run-")), Fence(int(fence))


class RunActor:
    """One run, once.  A second `run()` waits for the first; nothing here retries."""

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        self._progress = ProgressReader(plan.folder.progress_file)
        self._began_at_s = time.time()
        self._running: asyncio.Task[Outcome] | None = None

    async def run(self) -> Outcome:
        """Return how the run ended, when its ranks are gone and the final record is on disk."""
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await asyncio.shield(self._running)

    async def observe(self) -> Observation:
        return await asyncio.to_thread(self._observe)

    async def was_warm(self) -> bool:
        """Whether this process was there well before anybody asked for the run (the kernel's clock is coarse)."""
        return psutil.Process().create_time() < self._plan.requested_at_s - 2.0

    async def _run(self) -> Outcome:
        await asyncio.to_thread(self._plan.folder.begin)
        outcome = await asyncio.to_thread(self._fit)
        await asyncio.to_thread(self._end_ranks)
        await asyncio.to_thread(self._plan.folder.write_final, outcome)
        return outcome

    def _fit(self) -> Outcome:
        try:
            result = self._trainer().fit()
        except Exception as error:  # noqa: BLE001  whatever fit() raises is how the run ended
            return self._failed(error)
        returned = result.return_value if isinstance(result.return_value, dict) else {}
        stopped = bool(returned.get("stopped"))
        return Outcome(
            ending=Ending.STOPPED if stopped else Ending.COMPLETED,
            reason=Reason(code="stopped", message="the loop saved and returned, as asked")
            if stopped
            else Reason(code="completed", message="every rank returned"),
            result={"output_dir": self._output_dir(), "metrics": returned or result.metrics or {}},
            progress=self._progress.said(),
        )

    def _trainer(self) -> Any:
        from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        start, gang = self._plan.start, self._plan.start.spec.resources
        return TorchTrainer(
            run_rank,
            train_loop_config=dict(
                RankPlan(
                    folder=str(self._plan.folder.path),
                    function=self._plan.function,
                    config=start.spec.config,
                    cpus_per_rank=gang.cpus_per_rank,
                )
            ),
            torch_config=TorchConfig(backend=backend(gang)),
            scaling_config=ScalingConfig(
                num_workers=gang.num_ranks,
                use_gpu=gang.gpus_per_rank > 0,
                resources_per_worker=resources(gang),
                label_selector=[{"ray.io/node-id": node} for node in start.allocation.node_of_each_rank],
            ),
            run_config=RunConfig(
                name=f"train-{start.job_id[:8]}-{start.restarts}",
                storage_path=str(self._plan.storage / start.job_id),
                # Each try is a run of its own, with a new fence and a new placement: Ray must not retry.
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
                checkpoint_config=CheckpointConfig(
                    num_to_keep=start.spec.config.get("keep_checkpoints", KEEP_CHECKPOINTS)
                ),
            ),
        )

    def _failed(self, error: Exception) -> Outcome:
        """A loop that raised left a record; without one, something outside of it went wrong."""
        progress = self._progress.said()
        if raised := self._plan.folder.first_error():
            message = f"rank {raised['rank']} raised {raised['type']}: {raised['message']}"
            reason = Reason(code="loop_failed", message=_short(message), detail=raised["traceback"])
            return Outcome(ending=Ending.FAILED, cause=Cause.USER, reason=reason, progress=progress)
        reason = Reason(code="run_lost", message=_short(what_was_seen(error)), detail=str(error))
        return Outcome(ending=Ending.LOST, cause=Cause.INFRASTRUCTURE, reason=reason, progress=progress)

    def _observe(self) -> Observation:
        folder = self._plan.folder
        progress = self._progress.said()
        phases = {Phase.RESERVING.value: self._plan.requested_at_s, Phase.STARTING.value: self._began_at_s}
        phases |= self._progress.phases
        phase = Phase.STOPPING if folder.stop_file.exists() else _phase(self._progress.phase)
        return Observation(phase=phase, phases=phases, progress=progress, ranks=folder.ranks())

    def _end_ranks(self) -> None:
        """Ray Train has ended its workers; this makes sure, on this node.  The runner looks at the others."""
        import ray

        node_id = ray.get_runtime_context().get_node_id()
        end_here([rank for rank in self._plan.folder.ranks() if rank.node_id == node_id], grace_s=5.0)

    def _output_dir(self) -> str | None:
        output = self._plan.folder.output_dir
        return str(output) if output.is_dir() else None


def backend(gang: Gang) -> str:
    """NCCL wants a GPU for each rank; ranks that share one, or have none, use gloo."""
    return "nccl" if gang.gpus_per_rank >= 1 or (gang.gpus_per_rank > 0 and gang.num_ranks == 1) else "gloo"


def resources(gang: Gang) -> dict[str, float]:
    gpus = {"GPU": gang.gpus_per_rank} if gang.gpus_per_rank else {}
    return {"CPU": gang.cpus_per_rank, **gpus}


def what_was_seen(error: Exception) -> str:
    """The error of `fit()` in a sentence."""
    from ray.exceptions import ActorDiedError

    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    if failures:
        ranks = ", ".join(map(str, sorted(failures)))
        return f"rank {ranks} died without raising: killed, out of memory, exited, or its node is gone"
    if isinstance(error, ActorDiedError):
        return "Ray Train's controller died"
    cause = getattr(error, "controller_failure", error)
    return f"Ray Train could not run it: {type(cause).__name__}: {cause}"


def _phase(said: str | None) -> Phase:
    return Phase(said) if said in set(Phase) else Phase.STARTING


def _short(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= 500 else line[:497] + "..."
