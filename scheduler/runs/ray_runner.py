"""Runs as detached Ray actors, found again by name."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, ActorUnschedulableError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from scheduler.api.metrics import MetricsDocument
from scheduler.core.checkpoints import Checkpoint
from scheduler.core.lifecycle import StartRun, StopRun
from scheduler.core.model import Fence, Job, JobId, Json, Node, NodeId, Outcome, Reason, StopKind
from scheduler.errors import RunUnreachable, StorageUnavailable
from scheduler.ports import LogPart, Observation, RankProcess, Run
from scheduler.runs import placement_groups, stack_dump
from scheduler.runs.checkpoint_store import CheckpointStore
from scheduler.runs.metric_history import MetricHistories
from scheduler.runs.post_mortem import TAIL_BYTES, lost, stopped_by_operator
from scheduler.runs.processes import end_here
from scheduler.runs.ray_internals import draining_nodes, free_resources_by_node
from scheduler.runs.run_actor import RunActor, RunPlan, run_name, run_of
from scheduler.runs.run_dir import RunDir, newest_fence

log = logging.getLogger(__name__)

POLITE = frozenset({StopKind.PAUSE, StopKind.PREEMPT, StopKind.TIMEOUT})
"""Stops that let the loop save a checkpoint first.  A run that hangs would not."""
STACKS_TIMEOUT_S = 20.0


class RayRunner:
    """The Runner on Ray.  Keeps no state that a restart could lose: everything is in Ray's names and on disk."""

    def __init__(
        self,
        *,
        storage: Path,
        checkpoint_url: str,
        namespace: str,
        env_vars: Mapping[str, str],
        function_of: Callable[[str], str],
        observe_timeout_s: float,
        stop_grace_s: float,
        on_start: Callable[[NodeId, bool], None] = lambda _node, _warm: None,
    ) -> None:
        self._storage, self._namespace = storage, namespace
        self._histories = MetricHistories(storage)
        self._checkpoint_url = checkpoint_url
        self._env_vars, self._function_of = dict(env_vars), function_of
        self._observe_timeout_s, self._stop_grace_s = observe_timeout_s, stop_grace_s
        self._on_start = on_start
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, action: StartRun) -> None:
        folder = self._folder((action.job_id, action.fence))
        if folder.has_begun():
            return  # it lives, or it is over: `wait` will tell which
        plan = RunPlan(
            start=action,
            storage=self._storage,
            checkpoint_url=self._checkpoint_url,
            function=self._function_of(action.spec.loop),
            requested_at_s=time.time(),
        )
        actor = await asyncio.to_thread(self._create, plan)
        actor.run.remote()
        node = action.allocation.node_of_each_rank[0]
        self._hold(asyncio.create_task(self._report_start(actor, node)))

    async def stop(self, action: StopRun) -> None:
        run = (action.job_id, action.fence)
        actor = await self._actor(run)
        if actor is None:
            return
        if action.kind in POLITE:
            await self._ask_to_stop(run, actor)
        if why := action.why:
            await asyncio.to_thread(_written, lambda: self._folder(run).write_ended(why))
        ray.kill(actor, no_restart=True)
        if not self._folder(run).ranks():
            await asyncio.sleep(0.5)  # a rank that was just coming up may still sign in before it dies
        await self._see_gone(run)

    async def _ask_to_stop(self, run: Run, actor: Any) -> None:
        """Give the run time to save, unless it has nothing to save.  Says why it is killed before it is."""
        folder = self._folder(run)
        if await asyncio.to_thread(folder.has_nothing_to_save):
            reason = Reason(
                code="nothing_to_save", message="it had not made a step yet; its processes are gone"
            )
        else:
            if await asyncio.to_thread(_written, folder.stop_file.touch):
                ended = asyncio.ensure_future(_ended(actor))
                if (await asyncio.wait([ended], timeout=self._stop_grace_s))[0]:
                    return
            message = f"it did not save and stop within {self._stop_grace_s:g} s, and was ended"
            reason = Reason(code="ended_by_force", message=message)
        await asyncio.to_thread(_written, lambda: folder.write_ended(reason))

    async def wait(self, run: Run) -> Outcome:
        outcome = await self._outcome(run)
        if actor := await self._actor(run):
            ray.kill(actor, no_restart=True)
        await self._see_gone(run)
        return await asyncio.to_thread(_once_gone, self._folder(run), outcome)

    async def observe(self, run: Run) -> Observation:
        actor = await self._actor(run)
        if actor is None:
            raise RunUnreachable(f"the actor of run {run_name(*run)} is gone")
        try:
            return await asyncio.wait_for(actor.observe.remote(), self._observe_timeout_s)
        except (TimeoutError, RayActorError, RayTaskError, ActorUnschedulableError) as error:
            raise RunUnreachable(f"run {run_name(*run)} does not answer: {type(error).__name__}") from error

    async def examine(self, run: Run) -> Json:
        folder = self._folder(run)
        by_node = _by_node(folder.ranks())
        alive = {node.id for node in await self.nodes()}
        asked = [
            _on_node(stack_dump.capture_here, node).remote(ranks, STACKS_TIMEOUT_S)
            for node, ranks in by_node.items()
            if node in alive
        ]
        seen = await asyncio.wait_for(asyncio.gather(*asked), 2 * STACKS_TIMEOUT_S)
        found = {str(rank): text for part in seen for rank, text in part.items()}
        tails = await asyncio.to_thread(folder.log_tails, TAIL_BYTES)
        return {"stacks": found, "logs": tails}

    async def checkpoints(self, job_id: JobId) -> list[Checkpoint]:
        try:
            return await asyncio.to_thread(CheckpointStore(self._checkpoint_url, job_id).all)
        except OSError as error:
            raise StorageUnavailable(
                f"the checkpoints of job {job_id} cannot be read from {self._checkpoint_url}: {error}"
            ) from error

    async def live(self) -> frozenset[Run]:
        names: list[Any] = await asyncio.to_thread(ray.util.list_named_actors, all_namespaces=True)
        ours = (run_of(entry["name"]) for entry in names if entry["namespace"] == self._namespace)
        return frozenset(run for run in ours if run)

    async def recall(self, run: Run) -> Job | None:
        return await asyncio.to_thread(self._folder(run).job)

    async def newest(self, job_id: JobId) -> Fence:
        return await asyncio.to_thread(newest_fence, self._storage, job_id)

    async def read_log(self, run: Run, rank: int, offset: int, limit: int) -> LogPart:
        return await asyncio.to_thread(self._folder(run).read_log, rank, offset, limit)

    async def metrics(self, job_id: JobId, points: int) -> MetricsDocument:
        try:
            return await asyncio.to_thread(self._histories.metrics, job_id, points)
        except OSError as error:
            raise StorageUnavailable(f"what job {job_id} measured cannot be read: {error}") from error

    async def trends(self, job_ids: Collection[JobId], points: int) -> dict[JobId, list[float]]:
        try:
            return await asyncio.to_thread(self._histories.trends, job_ids, points)
        except OSError as error:
            raise StorageUnavailable(f"what the jobs measured cannot be read: {error}") from error

    async def nodes(self) -> tuple[Node, ...]:
        return await asyncio.to_thread(_nodes)

    def _folder(self, run: Run) -> RunDir:
        return RunDir.of(self._storage, *run)

    def _create(self, plan: RunPlan) -> Any:
        first_node = plan.start.allocation.node_of_each_rank[0]
        return (
            ray.remote(RunActor)
            .options(
                name=run_name(plan.start.job_id, plan.start.fence),
                namespace=self._namespace,
                lifetime="detached",
                get_if_exists=True,
                max_restarts=0,
                num_cpus=0,
                runtime_env={"env_vars": self._env_vars},
                scheduling_strategy=NodeAffinitySchedulingStrategy(first_node, soft=False),
            )
            .remote(plan)
        )

    async def _report_start(self, actor: Any, node: NodeId) -> None:
        """Whether the run started in a prepared process."""
        try:
            self._on_start(node, await actor.was_warm.remote())
        except (RayActorError, ActorUnschedulableError):
            return  # it died first: `wait` reports that

    def _hold(self, task: asyncio.Task[None]) -> None:
        """The event loop alone does not keep a task alive, and nobody else would see its error."""
        self._tasks.add(task)
        task.add_done_callback(self._let_go)

    def _let_go(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a task of a run failed: %s", error, exc_info=error)

    async def _actor(self, run: Run) -> Any | None:
        try:
            return await asyncio.to_thread(ray.get_actor, run_name(*run), self._namespace)
        except ValueError:
            return None

    async def _outcome(self, run: Run) -> Outcome:
        """The run's own final record wins over everything that was seen from outside."""
        while actor := await self._actor(run):
            try:
                return await actor.run.remote()
            except ActorUnavailableError:
                await asyncio.sleep(0.5)  # unknown is not dead
            except RayActorError as error:
                return await self._final_or_lost(run, "the actor of the run died", error)
            except RayTaskError as error:
                return await self._final_or_lost(run, f"the actor of the run failed: {error.cause}", error)
            except ActorUnschedulableError as error:
                return await self._final_or_lost(run, "its node was gone before it could start", error)
        return await self._final_or_lost(
            run, "the actor of the run was gone when the scheduler looked for it"
        )

    async def _final_or_lost(self, run: Run, seen: str, error: Exception | None = None) -> Outcome:
        folder = self._folder(run)
        return await asyncio.to_thread(lambda: folder.final() or lost(folder, seen, error))

    async def _see_gone(self, run: Run) -> None:
        """Return when no rank of the run is left on any live node, and its resources are given back."""
        by_node = _by_node(self._folder(run).ranks())
        await asyncio.gather(*(self._end_ranks(node, ranks) for node, ranks in by_node.items()))
        if controller := self._folder(run).controller():
            await asyncio.to_thread(placement_groups.release, controller)

    async def _end_ranks(self, node_id: str, ranks: Sequence[RankProcess]) -> None:
        if node_id == ray.get_runtime_context().get_node_id():
            left = await asyncio.to_thread(end_here, ranks, 5.0)
        elif node_id in {node.id for node in await self.nodes()}:
            left = await _on_node(end_here, node_id).remote(ranks, 5.0)
        else:
            return  # its node is gone, and the process with it
        if left:
            log.error(
                "processes %s of ranks on node %s survived SIGKILL", [rank.pid for rank in left], node_id
            )


async def _ended(actor: Any) -> None:
    try:
        await actor.run.remote()
    except (RayActorError, RayTaskError, ActorUnschedulableError):
        return


def _once_gone(folder: RunDir, outcome: Outcome) -> Outcome:
    """What the folder says when nothing of the run is left: a checkpoint may have become complete to the very end."""
    return stopped_by_operator(folder, replace(outcome, saved=folder.saved() or outcome.saved))


def _written(write: Callable[[], None]) -> bool:
    """A storage that is full must not keep a run from being ended: it only goes without saying why."""
    try:
        write()
    except OSError as error:
        log.error("the run directory cannot be written: %s", error)
        return False
    return True


def _by_node(ranks: Sequence[RankProcess]) -> dict[str, list[RankProcess]]:
    found: defaultdict[str, list[RankProcess]] = defaultdict(list)
    for rank in ranks:
        found[rank.node_id].append(rank)
    return found


def _on_node(function: Callable[..., Any], node_id: str) -> Any:
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(function).options(num_cpus=0, scheduling_strategy=strategy)


def _nodes() -> tuple[Node, ...]:
    available, draining = free_resources_by_node(), draining_nodes()
    return tuple(
        _node(node, available.get(node["NodeID"]), draining=node["NodeID"] in draining)
        for node in ray.nodes()
        if node["Alive"] and node["Resources"]
    )


def _node(node: dict[str, Any], available: Mapping[str, float] | None, *, draining: bool) -> Node:
    total = node["Resources"]
    return Node(
        id=NodeId(node["NodeID"]),
        name=node["NodeName"],
        cpus=total.get("CPU", 0.0),
        gpus=total.get("GPU", 0.0),
        available_cpus=available.get("CPU", 0.0) if available is not None else None,
        available_gpus=available.get("GPU", 0.0) if available is not None else None,
        draining=draining,
        memory_bytes=int(total["memory"]) if "memory" in total else None,
        labels=node.get("Labels") or {},
    )
