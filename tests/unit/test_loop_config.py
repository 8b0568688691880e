"""The configs of the built-in loops: what a server may rely on before a job is queued."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import BaseModel, ValidationError

from train_loops.config import LoraSettings, SftConfig, TorchDdpConfig

LEAST = {"model": "some/model", "dataset": "learn.jsonl"}


def refusal(config: type[BaseModel], **values: object) -> str:
    with pytest.raises(ValidationError) as refused:
        config(**values)
    return str(refused.value)


def test_model_and_dataset_are_all_that_sft_needs() -> None:
    """Otherwise the shortest useful job file is longer than it has to be."""
    cfg = SftConfig(**LEAST)
    assert (cfg.method, cfg.max_steps, cfg.num_epochs) == ("lora", None, None)


def test_both_ways_of_saying_how_long_are_refused_with_both_values() -> None:
    """Otherwise one of the two would win in silence."""
    said = refusal(SftConfig, **LEAST, max_steps=10, num_epochs=2)
    assert "max_steps=10" in said
    assert "num_epochs=2" in said
    assert "exactly one" in said


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_steps": 0}, "max_steps"),
        ({"num_epochs": 0}, "num_epochs"),
        ({"method": "qlora"}, "method"),
        ({"lora": {"r": 0}}, "lora.r"),
        ({"lora": {"rank": 4}}, "lora.rank"),
        ({"lora": {"target_modules": []}}, "lora.target_modules"),
        ({"lr_schedule": "constant", "warmup_steps": 5}, "constant_with_warmup"),
        ({"eval_every_steps": 5}, "eval_dataset"),
        ({"sample_prompts": ["?"] * 9}, "sample_prompts"),
        ({"sample_every_steps": 5}, "sample_prompts"),
        ({"sample_prompts": ["?"], "sample_every_steps": 0}, "sample_every_steps"),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"epochs": 3}, "epochs"),
        ({"keep_checkpoints": 3}, "keep_checkpoints"),
    ],
)
def test_a_wrong_value_is_refused_with_its_field(wrong: dict[str, object], field: str) -> None:
    """Otherwise it is found minutes later, on a GPU; and code from a model folder must never be let in."""
    assert field in refusal(SftConfig, **(LEAST | wrong))


def test_torch_ddp_needs_nothing() -> None:
    """Otherwise the first job of a newcomer needs a manual."""
    assert TorchDdpConfig().steps == 100
    assert "steps" in refusal(TorchDdpConfig, steps=-1)


@pytest.mark.parametrize("config", [SftConfig, TorchDdpConfig, LoraSettings])
def test_every_field_explains_itself_and_numbers_have_bounds(config: type[BaseModel]) -> None:
    """The schema is the manual of a loop, shown to users by the API."""
    assert config.__doc__
    for name, field in config.model_json_schema()["properties"].items():
        assert field.get("description"), name
        for kind in field.get("anyOf", [field]):
            if kind.get("type") in ("integer", "number"):
                assert {"minimum", "exclusiveMinimum"} & kind.keys(), name
                assert {"maximum", "exclusiveMaximum"} & kind.keys(), name


def test_paths_are_marked_with_what_they_must_hold() -> None:
    """A server that checks paths before queueing finds them by these marks, and by nothing else."""
    fields = SftConfig.model_json_schema()["properties"]
    marked = {name: field["path"] for name, field in fields.items() if "path" in field}
    assert marked == {"model": "model", "dataset": "messages_jsonl", "eval_dataset": "messages_jsonl"}


def test_reading_a_schema_loads_no_torch() -> None:
    """Otherwise every server process pays seconds and hundreds of megabytes for a schema."""
    code = "import sys, train_loops.config; print({'torch', 'transformers', 'ray'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"
