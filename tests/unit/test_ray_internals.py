"""Every private name of Ray that this project stands on: what it is for, and what breaks without it.

Moving to another Ray: run this, read what is missing, and mend `scheduler/runs/ray_internals.py` alone.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple

import pytest
from ray._common.constants import HEAD_NODE_RESOURCE_NAME
from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR
from ray.actor import ActorHandle

from scheduler.runs import ray_internals
from scheduler.server.actor import SETUP_HOOK
from scheduler.server.driver import HEAD

FILE = Path(ray_internals.__file__)


class Use(NamedTuple):
    purpose: str
    without_it: str


STATE = "ray._private.state.state"
CALLBACK = "ray.train.v2._internal.execution.callback"
KV = "ray.experimental.internal_kv"
NODE_MANAGER = "ray.core.generated.node_manager_pb2"

COLD = "every run starts cold, after some 18 s instead of one; /health says why"
GROUPS_LEFT = "a dead run keeps its resources: `_see_gone` raises, and its job never leaves the nodes"

USED = {
    "ray._private.state.available_resources_per_node": Use(
        "what each node has left", "no node is seen: nothing is placed, and /health is degraded"
    ),
    STATE: Use("the GCS, asked without the dashboard", "as for each of its members here"),
    f"{STATE}.get_draining_nodes": Use(
        "nodes that empty themselves",
        "no node is seen; a run whose node was drained is not told from one that was lost",
    ),
    f"{STATE}.actor_table": Use("whether the controller of a run is dead", GROUPS_LEFT),
    f"{STATE}._connect_and_get_accessor": Use("the table of placement groups with their makers", GROUPS_LEFT),
    "ray._raylet.GlobalStateAccessor.get_placement_group_table": Use("the same", GROUPS_LEFT),
    "ray.core.generated.gcs_pb2.PlacementGroupTableData": Use("its rows", GROUPS_LEFT),
    "ray._private.grpc_utils.init_grpc_channel": Use("a call to a node, with the token of the cluster", COLD),
    "ray.core.generated.node_manager_pb2_grpc.NodeManagerServiceStub": Use("a call to a node", COLD),
    NODE_MANAGER: Use("the messages of such a call", COLD),
    f"{NODE_MANAGER}.PrestartWorkersRequest": Use("fresh processes with the environment of runs", COLD),
    f"{NODE_MANAGER}.GetWorkerPIDsRequest": Use(
        "which prepared processes still live", "dead ones count as ready until a run misses them"
    ),
    "ray.core.generated.gcs_pb2.PlacementGroupTableData.FromString": Use("its rows", GROUPS_LEFT),
    "ray.core.generated.gcs_pb2.PlacementGroupTableData.REMOVED": Use("its rows", GROUPS_LEFT),
    "ray.core.generated.common_pb2": Use("that they are Python's", COLD),
    "ray.core.generated.common_pb2.PYTHON": Use("that they are Python's", COLD),
    "ray.core.generated.runtime_environment_pb2": Use("their environment", COLD),
    "ray.core.generated.runtime_environment_pb2.RuntimeEnvInfo": Use("their environment", COLD),
    "ray.core.generated.runtime_environment_pb2.RuntimeEnvConfig": Use("their environment", COLD),
    f"{KV}._internal_kv_put": Use(
        "prepared processes announce themselves", "none count as ready, and more are asked for now and then"
    ),
    f"{KV}._internal_kv_del": Use("they withdraw when they have work", "ready is too high until a check"),
    f"{KV}._internal_kv_list": Use("the pool counts them", COLD),
    "ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator."
    "get_or_create_autoscaling_coordinator": Use(
        "an actor that Ray Train makes once in a cluster", "the first run waits some 5 s for it"
    ),
    "ray.train.v2._internal.state.state_actor.get_or_create_state_actor": Use(
        "the other one", "the first run waits some 5 s for it"
    ),
    "ray.train.v2._internal.callbacks.placement_group_callback.PlacementGroupCleanerCallback": Use(
        "the helper that is left out of a run", "no run starts, until it is taken from ray_internals"
    ),
    "ray.train.v2._internal.callbacks.datasets.DatasetsCallback": Use(
        "the other one", "no run starts, until it is taken from ray_internals"
    ),
    "ray.train.v2.api.data_parallel_trainer.DataParallelTrainer": Use(
        "a trainer that needs no torch where it is called", "no run starts"
    ),
    "ray.train.v2.api.data_parallel_trainer.DataParallelTrainer._create_default_callbacks": Use(
        "where they are left out",
        "they are there: two processes more for each run, and its end waits for one of them",
    ),
    "ray.train.v2.api.data_parallel_trainer.DataParallelTrainer._initialize_and_run_controller": Use(
        "where the controller is started",
        "it is a process of its own again, which no prepared process is kept for: every run starts cold",
    ),
    "ray.train.v2._internal.execution.controller.TrainController": Use(
        "the controller, in the process of the run's own actor", "no run starts"
    ),
    "ray.train.v2._internal.execution.controller.TrainController.run": Use("its work", "no run starts"),
    "ray.train.v2._internal.execution.controller.TrainController.get_result": Use(
        "how it went", "the end of a run is not diagnosed, and its actor fails"
    ),
    "ray.train.v2._internal.execution.controller.TrainController.get_all_reported_checkpoints": Use(
        "what ranks may ask of a controller",
        "a loop that calls `ray.train.get_all_reported_checkpoints` fails",
    ),
    "ray.train.v2._internal.util.TrainingFramework": Use("the word for torch", "no run starts"),
    "ray.train.v2._internal.util.TrainingFramework.TORCH": Use("the word for torch", "no run starts"),
    "ray.train._internal.utils.get_address_and_port": Use(
        "where the ranks meet", "no run gets into its loop"
    ),
    "ray.train.torch.config._set_torch_distributed_env_vars": Use(
        "RANK, WORLD_SIZE and so on", "no run gets into its loop"
    ),
    "ray.train.torch.config._setup_torch_process_group": Use(
        "the process group, with the settings that NCCL wants", "no run gets into its loop"
    ),
    "ray.train.torch.config._shutdown_torch": Use(
        "leaving the group", "the end of a run is not diagnosed, and its actor fails"
    ),
    "ray.train.v2._internal.execution.worker_group.worker_group": Use(
        "the module whose function makes placement groups",
        "no run starts, until it is taken from ray_internals",
    ),
    "ray.train.v2._internal.execution.worker_group.worker_group.placement_group": Use(
        "wrapped, so that groups have the name of their run", "they have no name on the Ray dashboard"
    ),
    "ray.train.v2._internal.execution.context.get_train_context": Use(
        "what a rank is told and reports", "no run gets into its loop"
    ),
    "ray.train.v2._internal.execution.context.TrainContext.report": Use(
        "wrapped, so that what is reported is plain and becomes progress",
        "a loop that reports to Ray Train alone has no curve and counts as hung",
    ),
    "ray.train.v2._internal.execution.context.TrainContext.checkpoint": Use(
        "the checkpoint that the scheduler verified", "runs begin again instead of going on"
    ),
    "ray.train.v2._internal.execution.context.TrainRunContext": Use("a type in a signature", "nothing"),
    f"{CALLBACK}.ControllerCallback": Use(
        "hooks in the controller: who it is, the name of its groups, waiting for checkpoints at the end",
        "no run starts",
    ),
    f"{CALLBACK}.ControllerCallback.after_controller_start": Use(
        "the controller says who it is before any rank starts", GROUPS_LEFT
    ),
    f"{CALLBACK}.ControllerCallback.before_controller_shutdown": Use(
        "the end of a run waits until what was reported is complete", "the last checkpoint of a run is lost"
    ),
    f"{CALLBACK}.ReportCallback": Use("a checkpoint was reported", "no run starts"),
    f"{CALLBACK}.ReportCallback.after_report": Use("a checkpoint was reported", "no checkpoint is completed"),
    "ray.train.v2._internal.execution.training_report._TrainingReport": Use(
        "a type in a signature", "nothing"
    ),
    "ray.train.v2._internal.exceptions.WorkerHealthCheckFailedError": Use(
        "the process of a rank went", "the end of a run is not diagnosed, and its actor fails"
    ),
    "ray.train.v2._internal.exceptions.WorkerHealthCheckTimeoutError": Use(
        "the process of a rank does not answer", "the end of a run is not diagnosed, and its actor fails"
    ),
    "ray.actor.ActorHandle.__init__": Use(
        "sets `_ray_actor_creation_function_descriptor`, which says of what class an actor was made",
        "the driver cannot tell an actor of another release: after an upgrade in place none comes up",
    ),
    "ray.util.metrics.Metric._record": Use(
        "counters that begin with 0", "nothing is measured: /metrics lacks the series of the scheduler"
    ),
}


SET_BY_INIT = frozenset({"_ray_actor_creation_function_descriptor"})
"""Attributes that no class has."""


def is_private(name: str) -> bool:
    """Names that may go with any release of Ray."""
    banned = ("._", "ray.core.", "ray.experimental.", "ray.train.v2.")
    return name.startswith("ray.") and any(part in name for part in banned)


class Names(ast.NodeVisitor):
    """What is imported of Ray's private modules, what is asked of that, and every other name that begins with `_`."""

    def __init__(self) -> None:
        self.named: set[str] = set()
        self.hidden: set[str] = set()
        self._imported: dict[str, str] = {}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for one in node.names:
            if is_private(f"{node.module}.{one.name}"):
                self._imported[one.asname or one.name] = f"{node.module}.{one.name}"
                self.named.add(f"{node.module}.{one.name}")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and (owner := self._imported.get(node.value.id)):
            self.named |= {f"{owner}.{node.attr}"} if hasattr(resolve_name(owner), node.attr) else set()
        if node.attr.startswith("_") and not node.attr.startswith("__"):
            self.hidden.add(node.attr)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.generic_visit(node)
        self.hidden |= {
            one.name
            for one in node.body
            if isinstance(one, ast.FunctionDef) and one.name.startswith("_") and not one.name.startswith("__")
        }


@pytest.fixture(scope="module")
def names() -> Names:
    found = Names()
    found.visit(ast.parse(FILE.read_text()))
    return found


@pytest.mark.parametrize("name", USED)
def test_the_installed_ray_has_it(name: str) -> None:
    """A release of Ray without it breaks what is said beside it."""
    resolve_name(name)
    purpose, without_it = USED[name]
    assert purpose and without_it


def test_everything_that_is_used_is_listed(names: Names) -> None:
    """A name that is not listed would be found missing by the users of the next Ray."""
    assert names.named - USED.keys() == set()
    last = {name.rpartition(".")[2] for name in USED} | SET_BY_INIT
    assert names.hidden - last == set()


def test_nothing_is_listed_that_is_not_used(names: Names) -> None:
    """Who moves to the next Ray should not mend what nobody needs."""
    text = "".join(path.read_text() for path in FILE.parent.glob("*.py"))
    assert {name for name in USED if name.rpartition(".")[2] not in text} == set()


def test_names_that_stand_in_plain_words_are_rays() -> None:
    """They are letters to us, so that nothing has to be imported for them: Ray must mean the same by them."""
    assert resolve_name(SETUP_HOOK[WORKER_PROCESS_SETUP_HOOK_ENV_VAR].rpartition(".")[0])
    assert HEAD_NODE_RESOURCE_NAME in HEAD


def test_what_only_an_instance_has_is_set_by_ray() -> None:
    for name in SET_BY_INIT:
        assert f"self.{name} =" in inspect.getsource(ActorHandle.__init__)
