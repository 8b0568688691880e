"""The door: each kind of bad spec is refused with its field and a remedy, before it queues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.model import JobSpec
from scheduler.engine.spec_validation import MAX_SPEC_BYTES, SpecValidator
from scheduler.errors import InvalidSpec
from scheduler.testing.builders import a_node

GOOD_ROW = json.dumps({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that jobs may read, with one good dataset and one good model."""
    root = tmp_path / "data"
    (root / "model").mkdir(parents=True)
    (root / "model" / "config.json").write_text("{}")
    (root / "good.jsonl").write_text(GOOD_ROW + "\n")
    return root


def sft(root: Path, **config: Any) -> JobSpec:
    good = {"model": str(root / "model"), "dataset": str(root / "good.jsonl"), "max_steps": 1}
    return JobSpec(loop="sft", config=good | config)


def refusal(root: Path, spec: JobSpec, allowed: list[str] | None = None) -> str:
    with pytest.raises(InvalidSpec) as refused:
        SpecValidator(allowed or [], [root]).check(spec, [a_node(cpus=8, gpus=1)])
    assert all(problem.field and problem.message for problem in refused.value.problems)
    return str(refused.value)


def test_a_good_spec_passes(root: Path) -> None:
    SpecValidator([], [root]).check(sft(root), [a_node()])


BAD_ROWS = {
    "is empty": "",
    "line 1: this is not JSON": "not json",
    "line 2: `messages` is missing": GOOD_ROW + '\n{"text": "x"}',
    "line 1: `messages` is missing": "7",
    "line 1: messages.0: a message needs `role` and `content`": '{"messages": [{"role": "user"}]}',
    "no message of the assistant": '{"messages": [{"role": "user", "content": "q"}]}',
}


@pytest.mark.parametrize("words", BAD_ROWS)
def test_a_dataset_that_is_not_as_promised_names_file_and_line(root: Path, words: str) -> None:
    (root / "bad.jsonl").write_text(BAD_ROWS[words])
    message = refusal(root, sft(root, dataset=str(root / "bad.jsonl")))
    assert "config.dataset" in message
    assert words in message


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (GOOD_ROW.encode() + b"\n\xff\n", "line 2: holds bytes that are not UTF-8"),
        (b"\xff\xfe\x00", "is not UTF-16 text"),
        (
            GOOD_ROW.encode() + b"\n" + GOOD_ROW.replace('"q"', r'"\ud83d"').encode(),
            "line 2: messages.0.content holds half",
        ),
    ],
)
def test_bytes_that_are_no_text_are_refused(root: Path, raw: bytes, words: str) -> None:
    """B4: else the tokenizer falls over them, far from the line."""
    (root / "bad.jsonl").write_bytes(raw)
    assert words in refusal(root, sft(root, dataset=str(root / "bad.jsonl")))


def test_a_missing_dataset_is_named(root: Path) -> None:
    assert f"there is no file {root}/none.jsonl" in refusal(root, sft(root, dataset=f"{root}/none.jsonl"))


def test_a_relative_dataset_asks_for_the_absolute_path(root: Path) -> None:
    assert "give the absolute path" in refusal(root, sft(root, dataset="good.jsonl"))


@pytest.mark.parametrize("path", ["/etc/passwd", "{root}/../secret.jsonl", "{root}/link.jsonl"])
def test_a_path_that_leaves_the_roots_is_refused_even_through_a_link(root: Path, path: str) -> None:
    (root.parent / "secret.jsonl").write_text(GOOD_ROW)
    (root / "link.jsonl").symlink_to(root.parent / "secret.jsonl")
    message = refusal(root, sft(root, dataset=path.format(root=root)))
    assert "outside the folders that jobs may read" in message
    assert "SCHEDULER_DATA_ROOTS" in message


def test_a_model_folder_that_is_not_one_is_refused(root: Path) -> None:
    (root / "empty").mkdir()
    assert "no config.json" in refusal(root, sft(root, model=str(root / "empty")))
    assert "there is no folder" in refusal(root, sft(root, model=str(root / "none")))


def test_a_hub_id_is_taken_on_trust(root: Path) -> None:
    SpecValidator([], [root]).check(sft(root, model="HuggingFaceTB/SmolLM2-135M"), [a_node()])


def test_an_unknown_config_field_and_a_wrong_value_are_both_named(root: Path) -> None:
    message = refusal(root, sft(root, learning_rat=1, batch_size=0))
    assert "config.learning_rat" in message
    assert "config.batch_size" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused_in_any_config(root: Path, value: float) -> None:
    spec = JobSpec(loop="my.loops:train", config={"a": [{"learning_rate": value}]})
    assert "config.a.0.learning_rate" in refusal(root, spec, allowed=["my.loops:*"])


def test_a_loop_that_is_not_allowed_names_the_setting(root: Path) -> None:
    assert "SCHEDULER_ALLOWED_LOOPS=os:*" in refusal(root, JobSpec(loop="os:system"))
    assert "did you mean 'torch_ddp'" in refusal(root, JobSpec(loop="torch_dpp"))


def test_a_pattern_allows_its_module_only(root: Path) -> None:
    SpecValidator(["my.loops:*"], [root]).check(JobSpec(loop="my.loops:train"), [a_node()])
    assert "not allowed" in refusal(root, JobSpec(loop="my.other:train"), allowed=["my.loops:*"])


def test_more_than_any_node_has_is_refused_with_the_numbers(root: Path) -> None:
    spec = JobSpec(loop="torch_ddp", resources={"gpus_per_rank": 8})  # type: ignore[arg-type]
    assert "resources" in refusal(root, spec)


def test_a_spec_that_is_too_large_says_so(root: Path) -> None:
    spec = JobSpec(loop="torch_ddp", config={"x": "y" * MAX_SPEC_BYTES})
    assert "put data in a file" in refusal(root, spec)
