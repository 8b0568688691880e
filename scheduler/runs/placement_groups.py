"""The placement group of a run, removed when the run is gone.

Ray keeps the group of an actor that died as long as the Ray job lives, and ours lives as long as the cluster.  Ray Train
has a helper that removes it, which watches through the dashboard and gives up for good when that does not answer.  So it is
left out; the controller of a run says who it is, and whoever sees the run gone looks for what the controller made.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.train.v2._internal.execution.callback import ControllerCallback

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.execution.context import TrainRunContext
    from ray.util.placement_group import PlacementGroup

log = logging.getLogger("scheduler.runs.ray_runner")


class SignIn(ControllerCallback):
    """Goes into `RunConfig(callbacks=[...])`: writes the controller's actor id to *file* before any rank starts."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        self._file.write_text(ray.get_runtime_context().get_actor_id() or "")


class Named(ControllerCallback):
    """Goes into `RunConfig(callbacks=[...])`: the placement groups of the run carry *name* on the Ray dashboard.

    Ray Train has no setting for it, so the function by which it makes them is wrapped, in the controller's process
    alone.  Should a later Ray make them in another way, they have no name, and nothing else changes.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        from ray.train.v2._internal.execution.worker_group import worker_group

        if not hasattr(worker_group, "placement_group"):
            log.warning("this Ray makes placement groups in a way that is not known here; they have no name")
            return
        worker_group.placement_group = _naming(worker_group.placement_group, self._name)


def _naming(make: Callable[..., PlacementGroup], name: str) -> Callable[..., PlacementGroup]:
    numbers = count(1)

    def named(**options: Any) -> PlacementGroup:
        number = next(numbers)  # two that live at once may not have the same name
        return make(**{"name": name if number == 1 else f"{name}/{number}"} | options)

    return named


def trainer_without_helper() -> type[TorchTrainer]:
    """Ray Train's trainer, without the helper that this module replaces.

    The helper is one more process for each run, and the end of each run waits for it, up to a second.  Ray Train has
    no setting for that.  Should a later Ray bring it up in another way, it is there as before.
    """
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

    class Trainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            made = super()._create_default_callbacks()
            return [one for one in made if not isinstance(one, PlacementGroupCleanerCallback)]

    return Trainer


def release(controller: str, within_s: float = 5.0) -> None:
    """Remove the placement groups that the actor *controller* (an id in hexadecimal) made, and that are still there.

    Leaves it to the controller while it lives, but no longer than *within_s* seconds.  Safe to repeat.
    """
    until_s = time.monotonic() + within_s
    while groups := _made_by(controller):
        if _is_dead(controller) or time.monotonic() > until_s:
            for group in groups:
                log.info("removing the placement group %s that a dead run left", group.id.hex())
                ray.util.remove_placement_group(group)
            return
        time.sleep(0.05)


def _made_by(controller: str) -> list[PlacementGroup]:
    from ray._private.state import state
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData
    from ray.util.placement_group import PlacementGroup

    rows = map(
        PlacementGroupTableData.FromString, state._connect_and_get_accessor().get_placement_group_table()
    )
    return [
        PlacementGroup(ray.PlacementGroupID(row.placement_group_id))
        for row in rows
        if row.creator_actor_id.hex() == controller and row.state != PlacementGroupTableData.REMOVED
    ]


def _is_dead(actor: str) -> bool:
    from ray._private.state import state

    return state.actor_table(actor).get("State", "DEAD") == "DEAD"
