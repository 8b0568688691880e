"""The placement group of a run, removed when the run is gone.

Ray keeps the group of an actor that died as long as the Ray job lives, and ours lives as long as the cluster.  Ray Train
has a helper that removes it, which watches through the dashboard and gives up for good when that does not answer.  So it is
left out; the controller of a run says who it is, and whoever sees the run gone looks for what the controller made.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from scheduler.runs.ray_internals import (
    ControllerCallback,
    is_dead,
    placement_groups_made_by,
    wrap_making_of_placement_groups,
)

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup

    from scheduler.runs.ray_internals import TrainRunContext

log = logging.getLogger(__name__)


class RecordController(ControllerCallback):
    """Goes into `RunConfig(callbacks=[...])`: writes the controller's actor id to *file* before any rank starts."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        self._file.write_text(ray.get_runtime_context().get_actor_id() or "")


class NamePlacementGroups(ControllerCallback):
    """Goes into `RunConfig(callbacks=[...])`: the placement groups of the run carry *name* on the Ray dashboard.

    Ray Train has no setting for it, so the function by which it makes them is wrapped, in the controller's process
    alone.  Should a later Ray make them in another way, they have no name, and nothing else changes.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        if not wrap_making_of_placement_groups(partial(_naming, name=self._name)):
            log.warning("this Ray makes placement groups in a way that is not known here; they have no name")


def _naming(make: Callable[..., PlacementGroup], *, name: str) -> Callable[..., PlacementGroup]:
    numbers = count(1)

    def named(**options: Any) -> PlacementGroup:
        number = next(numbers)  # two that live at once may not have the same name
        return make(**{"name": name if number == 1 else f"{name}/{number}"} | options)

    return named


def release(controller: str, within_s: float = 5.0) -> None:
    """Remove the placement groups that the actor *controller* (an id in hexadecimal) made, and that are still there.

    Leaves it to the controller while it lives, but no longer than *within_s* seconds.  Safe to repeat.
    """
    until_s = time.monotonic() + within_s
    while groups := placement_groups_made_by(controller):
        if is_dead(controller) or time.monotonic() > until_s:
            for group in groups:
                log.info("orphan placement group %s of a dead run removed", group.id.hex())
                ray.util.remove_placement_group(group)
            return
        time.sleep(0.05)
