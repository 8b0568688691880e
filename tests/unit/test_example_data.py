"""The example data set is real input: it is in the promised format, and what it teaches is true here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from scheduler.core.lifecycle import EDGES
from scheduler.core.model import SPEC, JobSpec, Phase, Status
from scheduler.settings import Settings
from train_loops.config import LoopConfig, SftConfig, TorchDdpConfig

EXAMPLES = Path(__file__).parents[2] / "examples"
LEAST = {"train": 220, "heldout": 32}
LONGEST_ANSWER = 240
"""Characters.  About 60 tokens of the demo model, so that a pair stays near 80 with its chat template."""
LONGEST_QUESTION = 120

Pair = tuple[str, str]
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def pairs(part: str) -> list[Pair]:
    lines = (EXAMPLES / "data" / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    return [(m[0]["content"], m[1]["content"]) for m in (json.loads(line)["messages"] for line in lines)]


def plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def settings_named_with_numbers() -> Iterator[tuple[str, str, set[float]]]:
    """(setting, the whole pair, numbers in its answer) for each pair that names a setting of ours."""
    for question, answer in pairs("train") + pairs("heldout"):
        for name in re.findall(r"SCHEDULER_[A-Z_]+", f"{question} {answer}"):
            # Addresses and paths hold digits that are no value of the setting.
            numbers = {float(n) for n in NUMBER.findall(re.sub(r"http\S+|/\S+", "", answer))}
            yield name.removeprefix("SCHEDULER_").lower(), f"{question} {answer}", numbers


def job_spec(file_name: str) -> JobSpec:
    return SPEC.validate_python(yaml.safe_load((EXAMPLES / file_name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("part", LEAST)
def test_each_line_is_one_question_and_one_answer_in_the_messages_format(part: str) -> None:
    """A line of another shape would be refused when the demo submits its job."""
    for number, line in enumerate((EXAMPLES / "data" / f"{part}.jsonl").read_text().splitlines(), start=1):
        row = json.loads(line)
        assert list(row) == ["messages"], f"{part}.jsonl line {number}"
        assert [m["role"] for m in row["messages"]] == ["user", "assistant"], f"{part}.jsonl line {number}"
        for message in row["messages"]:
            assert set(message) == {"role", "content"}, f"{part}.jsonl line {number}"
            assert message["content"] == message["content"].strip() != "", f"{part}.jsonl line {number}"


@pytest.mark.parametrize(("part", "least"), LEAST.items())
def test_there_are_enough_pairs_to_learn_from_and_to_measure_with(part: str, least: int) -> None:
    """With a handful of pairs a falling loss would prove memory, not learning."""
    assert len(pairs(part)) >= least


def test_no_question_is_asked_twice_in_either_part() -> None:
    """A question in both parts would make the held-out loss a measure of what was copied."""
    questions = [plain(question) for question, _ in pairs("train") + pairs("heldout")]
    assert sorted(questions) == sorted(set(questions))


def test_no_held_out_answer_is_copied_from_the_training_part() -> None:
    """The same words as an answer in training could be recited without the question being understood."""
    taught = {plain(answer) for _, answer in pairs("train")}
    assert [answer for _, answer in pairs("heldout") if plain(answer) in taught] == []


@pytest.mark.parametrize("part", LEAST)
def test_pairs_are_short_enough_for_a_quick_step_on_a_laptop(part: str) -> None:
    """One long pair pads its whole batch, and the demo no longer ends within minutes."""
    for question, answer in pairs(part):
        assert len(question) <= LONGEST_QUESTION, question
        assert len(answer) <= LONGEST_ANSWER, answer


def test_every_setting_that_is_named_exists() -> None:
    """A model that teaches a setting nobody reads sends its users astray."""
    known = set(Settings.model_fields) | {"url"}
    assert {name for name, _, _ in settings_named_with_numbers()} <= known


def test_numbers_cited_for_settings_are_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """A default that changed in the code but not here would be taught wrongly from then on."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SCHEDULER_{name.upper()}", raising=False)
    settings = Settings()
    checked: set[str] = set()
    for name, text, numbers in settings_named_with_numbers():
        default = getattr(settings, name, None)
        if isinstance(default, int | float) and numbers and "default" in text:
            assert float(default) in numbers, text
            checked.add(name)
    assert len(checked) >= 12, f"only {sorted(checked)} are cited with a number"


def test_moves_that_are_taught_are_the_edges_of_the_lifecycle() -> None:
    """The edges are the heart of the scheduler: an answer that names one too many teaches a lie."""
    asked = re.compile(
        r"(?:follow after|follow|after|Where can a|What can a|Which statuses may a) "
        rf"({'|'.join(Status)})(?: job)?(?: go| become)?\?"
    )
    taught = set[Status]()
    for question, answer in pairs("train") + pairs("heldout"):
        if found := asked.search(question):
            status = Status(found[1])
            others = set(re.findall("|".join(Status), answer.lower())) - {status}
            assert others == {str(to) for to in EDGES[status]}, question
            taught.add(status)
    assert taught >= {Status.PENDING, Status.QUEUED, Status.RUNNING, Status.PAUSED, Status.FAILED}


def test_the_phases_that_are_listed_are_all_phases_in_order() -> None:
    """A phase that was added or renamed must be taught too."""
    answer = dict(pairs("train"))["Which phases does a run have?"].lower()
    assert re.findall(r"[a-z]+ing", answer) == [str(phase) for phase in Phase]


def test_the_demo_job_trains_on_this_data_and_asks_a_held_out_question() -> None:
    """The demo shows learning only if its question was not in the training part word for word."""
    config = job_spec("sft-lora.yaml").config
    assert Path(config["dataset"]).name == "train.jsonl"
    assert Path(config["eval_dataset"]).name == "heldout.jsonl"
    assert set(config["sample_prompts"]) <= {question for question, _ in pairs("heldout")}


CONFIGS: dict[str, type[LoopConfig]] = {"sft": SftConfig, "torch_ddp": TorchDdpConfig}


@pytest.mark.parametrize("file_name", [path.name for path in sorted(EXAMPLES.glob("*.yaml"))])
def test_every_example_job_is_one_that_its_loop_accepts(file_name: str) -> None:
    """A newcomer's first `scheduler submit` takes one of these files."""
    spec = job_spec(file_name)
    CONFIGS[spec.loop].model_validate(spec.config)


def test_files_named_in_the_example_jobs_are_there() -> None:
    """A renamed data file would be noticed only by whoever submits the example."""
    config = job_spec("sft-lora.yaml").config
    for path in (config["dataset"], config["eval_dataset"]):
        assert (EXAMPLES.parent / path).is_file(), path


def test_the_demo_model_is_the_one_that_make_prepares() -> None:
    """Two names for one folder, and the demo would look for a model that nobody made."""
    makefile = (EXAMPLES.parent / "Makefile").read_text(encoding="utf-8")
    assert f"DEMO_MODEL := {job_spec('sft-lora.yaml').config['model']}\n" in makefile
