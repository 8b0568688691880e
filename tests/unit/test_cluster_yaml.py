"""`cluster.yaml` is what `ray up` takes, and it says of the nodes what the scheduler is told of them."""

from __future__ import annotations

import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray._private.label_utils import validate_label_key, validate_label_value
from ray.autoscaler._private.util import prepare_config, validate_config

from scheduler.settings import NodeType, Settings

ROOT = Path(__file__).parents[2]
Config = dict[str, Any]


@pytest.fixture
def config() -> Config:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


def start_commands(config: Config) -> list[str]:
    return [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]


def variables(command: str) -> dict[str, str]:
    """The settings of ours that a command is started with."""
    return dict(word.split("=", 1) for word in shlex.split(command) if word.startswith("SCHEDULER_"))


def scheduler_variables(config: Config) -> dict[str, str]:
    return {k: v for command in config["head_start_ray_commands"] for k, v in variables(command).items()}


def test_ray_up_accepts_the_file(config: Config) -> None:
    """What Ray's own check refuses would fail at the user's first `ray up`.  D6."""
    validate_config(prepare_config(copy.deepcopy(config)))


def test_ray_up_refuses_a_field_that_it_does_not_know(config: Config) -> None:
    """If the check let everything pass, the test above would prove nothing."""
    config["available_node_types"]["gpu"]["max_worker"] = 4
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(prepare_config(config))


def test_the_head_offers_nothing_to_train_on(config: Config) -> None:
    """A rank on the head would take the registry's CPU, and every job's state would go stale."""
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    (start,) = [command for command in config["head_start_ray_commands"] if "ray start" in command]
    assert "--num-cpus=0" in start
    assert "--num-gpus=0" in start


def test_workers_have_gpus_and_a_bound(config: Config) -> None:
    """Without a bound an autoscaler spends until somebody notices."""
    gpu = config["available_node_types"]["gpu"]
    assert gpu["resources"]["GPU"] > 0
    assert gpu["min_workers"] <= gpu["max_workers"] <= config["max_workers"]


def test_the_scheduler_is_told_the_same_node_types_as_the_autoscaler(config: Config) -> None:
    """Told less, it would refuse jobs that could run; told more, it would let jobs wait for ever."""
    told = json.loads(scheduler_variables(config)["SCHEDULER_NODE_TYPES"])
    given = {
        name: {
            "cpus": kind["resources"]["CPU"],
            "gpus": kind["resources"]["GPU"],
            "max_nodes": kind["max_workers"],
        }
        for name, kind in config["available_node_types"].items()
        if name != config["head_node_type"]
    }
    assert told == given
    assert [NodeType.model_validate(kind).gpus for kind in told.values()] == [4]


def test_every_setting_given_to_the_scheduler_exists(config: Config) -> None:
    """A misspelled variable is silently not read."""
    names = {name.removeprefix("SCHEDULER_").lower() for name in scheduler_variables(config)}
    assert names <= set(Settings.model_fields)


def test_the_command_on_the_head_is_one_that_exists(config: Config) -> None:
    """A module that was moved would be noticed only on a machine that is paid for."""
    (start,) = [command for command in config["head_start_ray_commands"] if "SCHEDULER_STATE_DIR" in command]
    module, *arguments = start.partition(" -m ")[2].partition(" >>")[0].split()
    source = ROOT / f"{module.replace('.', '/')}.py"
    assert source.is_file(), module
    options = [argument for argument in arguments if argument.startswith("--")]
    assert [option for option in options if f'"{option}"' not in source.read_text()] == []


def test_token_authentication_is_explicit_wherever_ray_starts(config: Config) -> None:
    """Unset, Ray's mode depends on which files happen to lie in the home folder of a node."""
    joining = [command for command in start_commands(config) if re.search(r"ray start|scheduler\.", command)]
    assert len(joining) == 3
    for command in joining:
        assert re.search(r"(^|\s)RAY_AUTH_MODE=token\s", command), command
    assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"


def test_a_second_ray_up_leaves_training_jobs_alone(config: Config) -> None:
    """`ray stop`, in Ray's default commands, would end every job at each change of this file."""
    for command in start_commands(config):
        assert "ray stop" not in command
        if "ray start" in command:
            assert command.startswith("pgrep -x raylet")


def test_runs_are_stored_where_every_node_sees_them(config: Config) -> None:
    """On a disk of one node, the checkpoint of a retried run would be out of reach."""
    storage = scheduler_variables(config)["SCHEDULER_STORAGE_PATH"]
    assert f"-v {storage}:{storage}" in config["docker"]["run_options"]
    assert any(f"mountpoint -q {storage}" in command for command in config["initialization_commands"])


def test_labels_are_ones_that_ray_takes(config: Config) -> None:
    """A label that Ray refuses stops the node from starting."""
    for kind in config["available_node_types"].values():
        for key, value in kind["labels"].items():
            assert validate_label_key(key) is None
            assert not key.startswith("ray.io/")
            validate_label_value(value)
