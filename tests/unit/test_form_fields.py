"""The form that is made from a schema, and the value that it gives."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from scheduler.core.model import SPEC, CheckpointPolicy, Gang, JobSpec
from serve_app.pages.form_fields import Field, groups, texts, value_of
from train_loops.config import SftConfig, TorchDdpConfig

SPEC_FIELDS = list(chain.from_iterable(group.fields for group in groups(SPEC.json_schema())))


def fields_of(schema: dict[str, Any], prefix: str = "") -> list[Field]:
    return list(chain.from_iterable(group.fields for group in groups(schema, prefix)))


@pytest.mark.parametrize("config", [SftConfig, TorchDdpConfig])
def test_every_field_of_a_loop_has_an_input(config: Any) -> None:
    """A field that the form forgets could never be set there."""
    names = {field.path.split(".")[1] for field in fields_of(config.model_json_schema(), "config.")}
    assert names == set(config.model_fields)


def test_what_is_required_and_what_is_left_out_is_said() -> None:
    """An empty form would else look complete, and a default would have to be guessed."""
    fields = {field.path: field for field in fields_of(SftConfig.model_json_schema())}
    assert fields["model"].required
    assert not fields["seed"].required
    assert fields["learning_rate"].default == "0.0002"
    assert fields["method"].choices == ("lora", "full")
    assert (fields["lora.target_modules"].kind, fields["lora.target_modules"].word) == ("lines", "all-linear")


@pytest.mark.parametrize(
    "spec",
    [
        JobSpec(loop="sft"),
        JobSpec(
            loop="sft",
            name="a b",
            config={"model": "/m", "nested": {"x": [1, 2.5, None, True]}},
            resources=Gang(
                min_ranks=1, max_ranks=4, gpus_per_rank=0.5, on={"gpu": ["A100", "H100"], "zone": "a"}
            ),
            checkpoints=CheckpointPolicy(keep_best=2),
            priority=-3,
            max_runtime_s=60.0,
            labels={"team": "nlp", "why": "a=b"},
        ),
    ],
)
def test_a_spec_comes_back_from_its_own_form(spec: JobSpec) -> None:
    """A clone that is sent unchanged must be the same job."""
    shown = texts(SPEC_FIELDS, SPEC.dump_python(spec, mode="json"))
    assert SPEC.validate_python(value_of(SPEC_FIELDS, shown)) == spec


def test_an_empty_input_is_the_default_and_a_wrong_one_reaches_the_validation() -> None:
    """Its words name the field; a form that drops `3x` would start something else than was written."""
    given = {"loop": "sft", "name": " ", "priority": "high", "resources.num_ranks": "2"}
    assert value_of(SPEC_FIELDS, given) == {"loop": "sft", "priority": "high", "resources": {"num_ranks": 2}}


def test_a_list_is_written_line_by_line_and_its_word_stays_a_word() -> None:
    fields = fields_of(SftConfig.model_json_schema())
    assert value_of(fields, {"sample_prompts": "a, b\n\n c \n"}) == {"sample_prompts": ["a, b", "c"]}
    assert value_of(fields, {"lora.target_modules": "all-linear"}) == {
        "lora": {"target_modules": "all-linear"}
    }
    assert value_of(fields, {"lora.target_modules": "q_proj"}) == {"lora": {"target_modules": ["q_proj"]}}
