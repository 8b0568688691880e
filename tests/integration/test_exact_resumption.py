"""A run that was killed or stopped anywhere, any number of times, is the run that was left alone.

One rank in this process; tests/integration/test_loops_on_ray_train.py does the same with real gangs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

from tests.deaths import Killed, Where, acting, kill
from tests.one_rank import Job, one_thread
from tests.tiny_model import make_tiny_model, numbered_pairs, write_conversations

few_threads = pytest.fixture(scope="module", autouse=True)(one_thread)
STEPS = 9
WHERE = tuple(where for where in get_args(Where) if where != "before saving")
# 21 examples in batches of 2 are 11 forward passes: 3 steps of 3 and one of 2, so step 4 ends an epoch early.
SFT = {
    "max_steps": STEPS,
    "batch_size": 2,
    "gradient_accumulation_steps": 3,
    "learning_rate": 0.01,
    "lr_schedule": "cosine",
    "warmup_steps": 3,
    "checkpoint_every_steps": 2,
    "eval_every_steps": 3,
    "lora": {"dropout": 0.3},
}
DDP = {"steps": STEPS, "batch_size": 4, "checkpoint_every_steps": 2, "dropout": 0.3}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("train_loops.sft:train", SFT),
    "every weight": ("train_loops.sft:train", {**SFT, "method": "full"}),
    "torch_ddp": ("train_loops.torch_ddp:train", DDP),
}
ALL_KINDS = KINDS | {"lora in bf16": ("train_loops.sft:train", {**SFT, "precision": "bf16"})}
MakeJob = Callable[..., Job]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("exact")
    return {
        "model": str(make_tiny_model(folder / "model", attention_dropout=0.1)),
        "dataset": str(write_conversations(folder / "learn.jsonl", numbered_pairs(21))),
        "eval_dataset": str(write_conversations(folder / "held-out.jsonl", numbered_pairs(5))),
    }


@pytest.fixture
def job(tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> MakeJob:
    def make(name: str, kind: str, **more: Any) -> Job:
        loop, config = ALL_KINDS[kind]
        made = Job(loop, tmp_path / name, config | (files if "sft" in loop else {}) | more)
        made.tell(monkeypatch)
        return made

    return make


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, files: dict[str, str]) -> Callable[[str], Job]:
    """The run of a kind that nobody disturbs; made once."""
    made: dict[str, Job] = {}

    def run(kind: str) -> Job:
        if kind not in made:
            loop, config = ALL_KINDS[kind]
            folder = tmp_path_factory.mktemp("calm") / "job"
            made[kind] = Job(loop, folder, config | (files if "sft" in loop else {}))
            with pytest.MonkeyPatch.context() as monkeypatch:
                made[kind].tell(monkeypatch)
                made[kind].run()
            assert steps_taken(made[kind]) == list(range(1, STEPS + 1))
        return made[kind]

    return run


def steps_taken(run: Job) -> list[int]:
    return [step for name, step, _ in run.losses if name == "loss"]


def weights(run: Job) -> dict[str, torch.Tensor]:
    tensors = next(run.output.glob("*model.safetensors"), None)
    return load_file(tensors) if tensors else torch.load(run.output / "model.pt", weights_only=True)


def killed(run: Job, step: int, where: Where) -> None:
    with pytest.raises(Killed), acting(step, where, kill):
        run.run()


def comes_to(run: Job, step: int, where: Where) -> bool:
    """Only some steps are saved."""
    every = run.config["checkpoint_every_steps"]
    return where == "in the step" or step % every == 0 or step == STEPS


def stopped(run: Job, step: int) -> None:
    with acting(step, "in the step", run.stop_file.touch):
        said = run.run()
    run.stop_file.unlink()
    assert (said["stopped"], said["steps"]) == (True, step)


def assert_undisturbed(run: Job, calm: Job) -> None:
    """Every loss that was ever told, the final weights, and what the certificates say."""
    assert set(run.losses) == set(calm.losses)
    left, right = weights(run), weights(calm)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert [certificate["differs"] for certificate in run.certificates if certificate["differs"]] == []


def each(*, long: Iterable[tuple[str, ...]], of: Iterable[tuple[str, ...]]) -> list[Any]:
    """Those in *long* take seconds each, and the others prove the same of a part: `make test-all` runs all."""
    return [pytest.param(*one, marks=pytest.mark.long if one in long else ()) for one in of]


SLOW = {
    ("lora", "while saving"),
    ("lora", "after saving"),
    ("every weight", "in the step"),
    ("every weight", "after saving"),
}


@pytest.mark.parametrize(
    ("kind", "where"), each(long=SLOW, of=[(kind, where) for kind in KINDS for where in WHERE])
)
def test_a_run_killed_at_each_step_in_turn(
    job: MakeJob, calm: Callable[[str], Job], kind: str, where: Where
) -> None:
    """Each try finds what the one before had saved: weights, moments, schedule, data position, dropout."""
    run = job("killed", kind)
    for step in range(1, STEPS + 1):
        if comes_to(run, step, where):
            killed(run, step, where)
    run.run()
    assert_undisturbed(run, calm(kind))


@pytest.mark.parametrize("kind", each(long={("every weight",)}, of=[(kind,) for kind in KINDS]))
def test_a_run_stopped_at_each_step_in_turn(job: MakeJob, calm: Callable[[str], Job], kind: str) -> None:
    """A stop saves where no checkpoint was due, also beside an evaluation that was due there."""
    run = job("stopped", kind)
    for step in range(1, STEPS):
        stopped(run, step)
    run.run()
    assert [metrics["step"] for metrics in run.reported] == list(range(1, STEPS + 1))
    assert steps_taken(run) == list(range(1, STEPS + 1)), "no step is taken twice"
    assert len(run.certificates) == STEPS - 1
    assert_undisturbed(run, calm(kind))


@pytest.mark.parametrize(
    ("kind", "seed"), [pytest.param("lora", 1, marks=pytest.mark.long), ("lora in bf16", 2), ("torch_ddp", 3)]
)
def test_a_run_disturbed_by_chance(job: MakeJob, calm: Callable[[str], Job], kind: str, seed: int) -> None:
    """Kills and stops in any order, saving as often as it comes."""
    chance = random.Random(seed)
    run = job("disturbed", kind, checkpoint_every_steps=chance.randint(1, 4))
    for _ in range(8):
        first = run.reported[-1]["step"] if run.reported else 0
        if first == STEPS:
            break
        step, where = chance.randint(first + 1, STEPS), chance.choice(WHERE)
        if step < STEPS and chance.random() < 0.3:
            stopped(run, step)
        elif comes_to(run, step, where):
            killed(run, step, where)
    run.run()
    assert_undisturbed(run, calm(kind))
