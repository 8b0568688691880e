"""Placement groups get the name of their run, and nothing else about them changes."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train.v2._internal.execution.worker_group import worker_group

from scheduler.runs.placement_groups import NamePlacementGroups


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of each group that Ray Train asks for."""
    options: list[dict[str, Any]] = []
    monkeypatch.setattr(worker_group, "placement_group", lambda **given: options.append(given))
    return options


def test_each_group_of_a_run_has_a_name_of_its_own(made: list[dict[str, Any]]) -> None:
    """Ray refuses a name that is taken, and a group that was given up may still be there."""
    NamePlacementGroups("run-1").after_controller_start(SimpleNamespace())
    worker_group.placement_group(bundles=[{"CPU": 1}], strategy="PACK")
    worker_group.placement_group(bundles=[{"CPU": 1}], strategy="PACK")
    assert [group.pop("name") for group in made] == ["run-1", "run-1/2"]
    assert made == [{"bundles": [{"CPU": 1}], "strategy": "PACK"}] * 2


def test_a_ray_that_makes_groups_in_another_way_still_runs_the_job(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A name is worth nothing to a run that it stops."""
    monkeypatch.delattr(worker_group, "placement_group")
    with caplog.at_level(logging.WARNING):
        NamePlacementGroups("run-1").after_controller_start(SimpleNamespace())
    assert "no name" in caplog.text
    assert not hasattr(worker_group, "placement_group")
