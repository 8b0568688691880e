"""The actor that owns one run: it calls `DataParallelTrainer.fit()` and leaves the final record."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
import ray

from scheduler.core.checkpoints import Checkpoint, lineage
from scheduler.core.finite import moment
from scheduler.core.lifecycle import StartRun
from scheduler.core.model import Fence, Gang, JobId, NodeId, Outcome, Phase
from scheduler.core.observation import moments
from scheduler.core.plain_values import plain_outcome
from scheduler.errors import CheckpointUnusable
from scheduler.ports import Observation
from scheduler.runs.checkpoint_callback import CheckpointCallback
from scheduler.runs.checkpoint_store import CheckpointStore, train_name
from scheduler.runs.placement_groups import NamePlacementGroups, RecordController
from scheduler.runs.post_mortem import failure, finished, silent
from scheduler.runs.processes import end_here
from scheduler.runs.progress import ProgressReader
from scheduler.runs.ray_internals import lean_trainer
from scheduler.runs.resume_report import resume_report, take_control_words
from scheduler.runs.run_dir import RunDir
from scheduler.runs.train_worker import WorkerPlan, run_rank

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """All that a run's actor is told.  `function` is the loop as `module:function`."""

    start: StartRun
    storage: Path
    checkpoint_url: str
    function: str
    requested_at_s: float

    @property
    def folder(self) -> RunDir:
        return RunDir.of(self.storage, self.start.job_id, self.start.fence)

    @property
    def checkpoints(self) -> CheckpointStore:
        return CheckpointStore(self.checkpoint_url, self.start.job_id)


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
        self._began_at_s, self._began_s = time.time(), time.monotonic()
        self._stepped: tuple[float, float] | None = None
        self._running: asyncio.Task[Outcome] | None = None
        self._trainer: Any = None

    def __repr__(self) -> str:
        """What the Ray dashboard and `ray list actors` show beside the name, which has only the id."""
        start = self._plan.start
        return f"{_one_line(start.spec.name)}, attempt {start.fence}"

    async def run(self) -> Outcome:
        """Return how the run ended, when its ranks are gone and the final record is on disk."""
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await asyncio.shield(self._running)

    async def observe(self) -> Observation:
        return await asyncio.to_thread(self._observe)

    async def get_all_reported_checkpoints(self, *asked: Any) -> Any:
        """What `ray.train.get_all_reported_checkpoints` on a rank asks of Ray Train's controller, which works here."""
        return await self._trainer.get_all_reported_checkpoints(*asked)

    async def was_warm(self) -> bool:
        """Whether this process was there well before anybody asked for the run (the kernel's clock is coarse)."""
        return psutil.Process().create_time() < self._plan.requested_at_s - 2.0

    async def _run(self) -> Outcome:
        node = NodeId(ray.get_runtime_context().get_node_id())
        await asyncio.to_thread(self._plan.folder.begin, node, self._plan.start.job)
        outcome = plain_outcome(await asyncio.to_thread(self._fit))
        await asyncio.to_thread(self._end_ranks)
        try:
            await asyncio.to_thread(self._plan.folder.write_final, outcome)
        except OSError:  # whoever waits for this gets it all the same; and the ranks left their own records
            log.exception(
                "run %s: final.json cannot be written",
                run_name(self._plan.start.job_id, self._plan.start.fence),
            )
        return outcome

    def _fit(self) -> Outcome:
        try:
            self._trainer = self._make_trainer(self._resume_from())
            self._trainer.fit()
        except Exception as error:  # noqa: BLE001  whatever fit() raises is how the run ended
            return failure(self._plan.folder, error)
        # That `fit()` returned proves nothing: the thread of a rank may have ended without a word.
        num_ranks = len(self._plan.start.allocation.node_of_each_rank)
        return finished(self._plan.folder) or silent(self._plan.folder, num_ranks)

    def _resume_from(self) -> Checkpoint | None:
        """The newest whole checkpoint that continues the job's origin; what was found is written down.

        Raises CheckpointUnusable when a person chose the checkpoint and it is not whole: going on from another would
        be another job.
        """
        origin, checkpoints = self._plan.start.origin, self._plan.checkpoints
        checkpoints.sweep(self._plan.start.fence)
        chosen, skipped = checkpoints.open_newest(lineage(checkpoints.all(), origin))
        if chosen is None and origin.checkpoint is not None:
            why = "; ".join(skipped) or "it is gone"
            raise CheckpointUnusable(
                f"checkpoint {origin.checkpoint}, which was chosen, cannot be used: {why}; choose another, or restart"
            )
        if chosen or skipped:
            self._plan.folder.write_resumed(resume_report(chosen, skipped))
        return chosen

    def _make_trainer(self, resume_from: Checkpoint | None) -> Any:
        from ray.train import FailureConfig, RunConfig, ScalingConfig

        from scheduler.runs.process_group import ProcessGroup

        start, gang = self._plan.start, self._plan.start.spec.resources
        nodes, checkpoints = start.allocation.node_of_each_rank, self._plan.checkpoints
        return lean_trainer()(
            cast(Any, run_rank),  # a WorkerPlan is a dict
            train_loop_config=dict(
                WorkerPlan(
                    folder=str(self._plan.folder.path),
                    function=self._plan.function,
                    code=start.spec.code.pickle if start.spec.code else None,
                    config=start.spec.config,
                    cpus_per_rank=gang.cpus_per_rank,
                    checkpoint_url=self._plan.checkpoint_url,
                    resume_from=resume_from.path if resume_from else None,
                )
            ),
            backend_config=ProcessGroup(backend(gang, len(nodes))),
            scaling_config=ScalingConfig(
                num_workers=len(nodes),
                use_gpu=gang.gpus_per_rank > 0,
                resources_per_worker=resources(gang),
                label_selector=[{"ray.io/node-id": node} for node in nodes],
            ),
            run_config=RunConfig(
                name=train_name(start.job_id, start.fence),
                storage_path=checkpoints.root,
                storage_filesystem=checkpoints.filesystem,
                # Each try is a run of its own, with a new fence and a new placement: Ray must not retry.
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
                callbacks=self._callbacks(resume_from),
            ),
        )

    def _callbacks(self, resume_from: Checkpoint | None) -> list[Any]:
        """No `UserCallback`s, as Ray Train has it in its signature: see ray_internals.py."""
        start, folder = self._plan.start, self._plan.folder
        return [
            RecordController(folder.controller_file),
            NamePlacementGroups(run_name(start.job_id, start.fence)),
            CheckpointCallback(
                url=self._plan.checkpoint_url,
                job_id=start.job_id,
                fence=start.fence,
                policy=start.spec.checkpoints,
                origin=start.origin,
                saved_file=folder.saved_file,
                resumed_from=resume_from.id if resume_from else None,
            ),
        ]

    def _observe(self) -> Observation:
        folder = self._plan.folder
        progress, said = take_control_words(self._progress.reported())
        phases = {Phase.RESERVING.value: self._plan.requested_at_s, Phase.STARTING.value: self._began_at_s}
        phases |= self._progress.phases
        phases |= moments(time.time(), time.monotonic() - self._began_s, self._quiet_s())
        phase = Phase.STOPPING if folder.stop_file.exists() else _phase(self._progress.phase)
        stepped_at_s = self._progress.stepped_at_s
        return Observation(
            phase=phase,
            phases=phases,
            progress=progress,
            ranks=folder.ranks(),
            resumed=said.complete(folder.resumed(), has_stepped=stepped_at_s is not None),
            saved=folder.saved(),
            stop_seen_at=said.stop_seen_at,
            pace=self._progress.pace,
            stepped_at=moment(stepped_at_s),
        )

    def _quiet_s(self) -> float | None:
        """Since the newest step was seen here, by a clock that nobody can set; None before the first."""
        stepped_at_s = self._progress.stepped_at_s
        if stepped_at_s is None:
            return None
        if self._stepped is None or self._stepped[0] != stepped_at_s:
            self._stepped = stepped_at_s, time.monotonic()
        return time.monotonic() - self._stepped[1]

    def _end_ranks(self) -> None:
        """Ray Train has ended its workers; this makes sure, on this node.  The runner looks at the others."""
        node_id = ray.get_runtime_context().get_node_id()
        end_here([rank for rank in self._plan.folder.ranks() if rank.node_id == node_id], grace_s=5.0)


def _one_line(name: str) -> str:
    """Ray writes it into its logs."""
    return "".join(letter if letter.isprintable() else " " for letter in name)


def backend(gang: Gang, num_ranks: int) -> str:
    """NCCL wants a GPU for each rank; ranks that share one, or have none, use gloo."""
    return "nccl" if gang.gpus_per_rank >= 1 or (gang.gpus_per_rank > 0 and num_ranks == 1) else "gloo"


def resources(gang: Gang) -> dict[str, float]:
    gpus = {"GPU": gang.gpus_per_rank} if gang.gpus_per_rank else {}
    return {"CPU": gang.cpus_per_rank, **gpus}


def _phase(said: str | None) -> Phase:
    return Phase(said) if said else Phase.STARTING
