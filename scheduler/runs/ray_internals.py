"""THE file that touches what Ray keeps to itself.  Whoever moves to another Ray reads this, and `test_ray_internals.py`.

Each function says what it is for; the test says of each name of Ray what breaks without it.  What belongs to Ray Train is
imported when it is first needed: that takes seconds, and this module is loaded in processes that never need it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import ray

if TYPE_CHECKING:
    from ray.train import Checkpoint
    from ray.train.v2._internal.execution.callback import ControllerCallback as ControllerCallback
    from ray.train.v2._internal.execution.callback import ReportCallback as ReportCallback
    from ray.train.v2._internal.execution.context import TrainRunContext as TrainRunContext
    from ray.train.v2._internal.execution.training_report import _TrainingReport
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
    from ray.util.metrics import Metric
    from ray.util.placement_group import PlacementGroup

    TrainingReport = _TrainingReport

PREPARED = b"scheduler-prepared"
"""Where processes that wait for work say so, in the key-value store of Ray's GCS: `<job id>/<node id>/<pid>`."""
ANSWERS_WITHIN_S = 10.0
MADE_WITHIN_S = 120.0


def __getattr__(name: str) -> Any:
    """The base classes of our callbacks: a `UserCallback`, which is public, is not waited for at the end of a run."""
    if name == "ControllerCallback":
        from ray.train.v2._internal.execution.callback import ControllerCallback

        return ControllerCallback
    if name == "ReportCallback":
        from ray.train.v2._internal.execution.callback import ReportCallback

        return ReportCallback
    raise AttributeError(f"module {__name__} has no attribute {name}")


# The cluster


def free_resources_by_node() -> Mapping[str, Mapping[str, float]]:
    """What each node has left, by its id.  The public call has only the sum of all nodes."""
    from ray._private.state import available_resources_per_node

    return available_resources_per_node()


def draining_nodes() -> frozenset[str]:
    """The ids of the nodes that were told to empty themselves: nothing new is placed there."""
    from ray._private.state import state

    return frozenset(state.get_draining_nodes())


def is_dead(actor_id: str) -> bool:
    """Whether the actor is gone for good; asked of the GCS, as the public call goes through the dashboard."""
    from ray._private.state import state

    return state.actor_table(actor_id).get("State", "DEAD") == "DEAD"


def is_made_of(actor: Any, kind: type) -> bool:
    """Whether an actor, found by its name, was made of this class where it stands now.

    When its process ends, Ray makes a new one of the same class, by its name.  If another release has it elsewhere, that
    fails, for ever, and the name stays taken.
    """
    made_of = actor._ray_actor_creation_function_descriptor
    return (made_of.module_name, made_of.class_name) == (kind.__module__, kind.__name__)


def placement_groups_made_by(actor_id: str) -> list[PlacementGroup]:
    """Those that are still there.  The public table does not say who made a group."""
    from ray._private.state import state
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # pyright: ignore[reportAttributeAccessIssue]
    from ray.util.placement_group import PlacementGroup

    table = state._connect_and_get_accessor().get_placement_group_table()
    return [
        PlacementGroup(ray.PlacementGroupID(row.placement_group_id))
        for row in map(PlacementGroupTableData.FromString, table)
        if row.creator_actor_id.hex() == actor_id and row.state != PlacementGroupTableData.REMOVED
    ]


# Prepared processes


def prestart_processes(node_id: str, environment: str, count: int, keep_s: int) -> None:
    """Ask a node for *count* fresh processes whose runtime environment is *environment*, letter for letter.

    It starts what it has room for, and does not say how many those are.
    """
    from ray.core.generated import common_pb2, node_manager_pb2, runtime_environment_pb2

    info = runtime_environment_pb2.RuntimeEnvInfo(  # pyright: ignore[reportAttributeAccessIssue]
        serialized_runtime_env=environment,
        runtime_env_config=runtime_environment_pb2.RuntimeEnvConfig(setup_timeout_seconds=600),  # pyright: ignore[reportAttributeAccessIssue]
    )
    request = node_manager_pb2.PrestartWorkersRequest(  # pyright: ignore[reportAttributeAccessIssue]
        language=common_pb2.PYTHON,  # pyright: ignore[reportAttributeAccessIssue]
        job_id=bytes.fromhex(ray.get_runtime_context().get_job_id()),
        runtime_env_info=info,
        keep_alive_duration_secs=keep_s,
        num_workers=count,
    )
    _ask_node(node_id, "PrestartWorkers", request)


def pids_on(node_id: str) -> frozenset[int]:
    """The worker processes that a node has."""
    from ray.core.generated import node_manager_pb2

    reply = _ask_node(node_id, "GetWorkerPIDs", node_manager_pb2.GetWorkerPIDsRequest())  # pyright: ignore[reportAttributeAccessIssue]
    return frozenset(reply.pids)


def announce_prepared(node_id: str, pid: int) -> None:
    """Called in a process that waits for work with everything imported."""
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(_key(node_id, pid), b"", namespace=PREPARED)


def withdraw_prepared(node_id: str, pid: int) -> None:
    """It has work now, or is gone.  Safe to repeat."""
    from ray.experimental.internal_kv import _internal_kv_del

    _internal_kv_del(_key(node_id, pid), namespace=PREPARED)


def prepared_processes() -> frozenset[tuple[str, int]]:
    """Node id and pid of each process of this Ray job that announced itself and did not withdraw; it may have died."""
    from ray.experimental.internal_kv import _internal_kv_list

    job_id = ray.get_runtime_context().get_job_id()
    keys = _internal_kv_list(f"{job_id}/".encode(), namespace=PREPARED)
    parts = (key.decode().split("/") for key in keys)
    return frozenset((node_id, int(pid)) for _, node_id, pid in parts)


def _key(node_id: str, pid: int) -> bytes:
    """A process belongs to a Ray job: that of another scheduler, or of a driver that is gone, is of no use to this one."""
    return f"{ray.get_runtime_context().get_job_id()}/{node_id}/{pid}".encode()


def _ask_node(node_id: str, method: str, request: Any) -> Any:
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated.node_manager_pb2_grpc import NodeManagerServiceStub

    node = next(node for node in ray.nodes() if node["NodeID"] == node_id)
    channel = init_grpc_channel(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}")
    try:
        return getattr(NodeManagerServiceStub(channel), method)(request, timeout=ANSWERS_WITHIN_S)
    finally:
        channel.close()


# Ray Train


def make_cluster_wide_actors() -> None:
    """The two that Ray Train makes once in a cluster: the first run would wait for them.  Returns when they are there."""
    from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
        get_or_create_autoscaling_coordinator,
    )
    from ray.train.v2._internal.state.state_actor import get_or_create_state_actor

    made: list[Any] = [get_or_create_autoscaling_coordinator(), get_or_create_state_actor()]
    ray.get([actor.__ray_ready__.remote() for actor in made], timeout=MADE_WITHIN_S)


def lean_trainer() -> type[DataParallelTrainer]:
    """Ray Train's trainer, to be used in an actor, without three of the processes that it starts for each run.

    Its controller works in the actor itself, which has nothing else to do and would wait for it.  What removes placement
    groups is left out (placement_groups.py does it), and the end of a run need not wait for it, up to a second.  What hands
    out Ray Datasets is left out: our loops read their data themselves.  There is no setting for any of these.  The actor
    must have the method that the ranks call on a controller, and pass it on to the trainer's.
    """
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2._internal.execution.controller import TrainController
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    class Trainer(DataParallelTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            made = super()._create_default_callbacks()
            return [
                one for one in made if not isinstance(one, PlacementGroupCleanerCallback | DatasetsCallback)
            ]

        def _initialize_and_run_controller(self, **parts: Any) -> Any:
            self.controller = TrainController(**parts)
            asyncio.run(self.run_controller())
            return self.controller.get_result()

        async def run_controller(self) -> None:
            self.loop = asyncio.get_running_loop()
            await self.controller.run()

        async def get_all_reported_checkpoints(self, *asked: Any) -> Any:
            answer = self.controller.get_all_reported_checkpoints(*asked)
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(answer, self.loop))

    return Trainer


def torch_framework() -> Any:
    """What Ray Train calls torch where it shows a run."""
    from ray.train.v2._internal.util import TrainingFramework

    return TrainingFramework.TORCH


def free_address() -> tuple[str, int]:
    """On rank 0: where the others meet it."""
    from ray.train._internal.utils import get_address_and_port

    return get_address_and_port()


def set_torch_environment(address: str, port: int) -> None:
    """On each rank: `MASTER_ADDR` and `MASTER_PORT`, `RANK`, `WORLD_SIZE` and so on, as `torchrun` sets them."""
    from ray.train.torch.config import _set_torch_distributed_env_vars

    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
    _set_torch_distributed_env_vars()


def join_process_group(backend: str, rank: int, world_size: int) -> None:
    """On each rank; returns when all are there."""
    from ray.train.torch.config import _setup_torch_process_group

    _setup_torch_process_group(backend, rank, world_size, "env://")


def leave_process_group(destroy: bool) -> None:
    """On each rank, at the end; frees what it has kept of its GPU."""
    from ray.train.torch.config import _shutdown_torch

    _shutdown_torch(destroy_process_group=destroy)


def wrap_making_of_placement_groups(wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> bool:
    """In this process, Ray Train makes its placement groups by what *wrap* returns.  False: in a way unknown here."""
    from ray.train.v2._internal.execution.worker_group import worker_group

    if not hasattr(worker_group, "placement_group"):
        return False
    worker_group.placement_group = wrap(worker_group.placement_group)  # pyright: ignore[reportPrivateImportUsage]
    return True


def rank_context() -> Any:
    """Of the rank that runs in this process: `report` is what `ray.train.report` calls, and may be replaced."""
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context()


def resume_from(checkpoint: Checkpoint) -> None:
    """What `ray.train.get_checkpoint()` returns on this rank.

    Ray Train would pick one by its own snapshot of an earlier run of the same name, whole or not, and has no
    public way to be told.
    """
    rank_context().checkpoint = checkpoint


def is_death_of_rank(error: Exception) -> bool:
    """Whether Ray Train says by it that the process of a rank went, or does not answer; else a rank raised it."""
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError

    return isinstance(error, WorkerHealthCheckFailedError | WorkerHealthCheckTimeoutError)


# Metrics


def record_metric(metric: Metric, value: float, tags: dict[str, str]) -> None:
    """A counter too may be recorded as 0, so that its series is there before anything was counted: `inc` refuses that."""
    metric._record(value, tags=tags)
