"""The built-in loops under the real Ray Train: on one rank and on two, each with a rank that dies on the way.

All runs are started by the first test that needs one: a cold start of Ray Train is what takes the time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.fit import Fits, ray_train
from tests.tiny_model import make_tiny_model, numbered_pairs, write_conversations
from train_loops import torch_ddp
from train_loops.config import TorchDdpConfig

pytestmark = pytest.mark.ray
SFT, DDP = "train_loops.sft:train", "train_loops.torch_ddp:train"
WITHIN_S = 240
DDP_CONFIG = {"steps": 12, "checkpoint_every_steps": 4, "batch_size": 8, "seed": 3}


class Runs:
    """Starts runs, and knows where each puts what."""

    def __init__(self, fits: Fits, folder: Path) -> None:
        self.fits, self.folder = fits, folder
        self.answers: dict[str, Future[dict[str, Any]]] = {}

    def start(
        self, name: str, loop: str, config: dict[str, Any], *, num_ranks: int, dies_at: int, then: Any = ()
    ) -> None:
        """Run *loop*; its last rank dies once; when it is through, run *then* in the same ranks."""
        self.answers[name] = self.fits.run(
            name,
            storage=str(self.folder / "storage"),
            loop="tests.loops:interrupted",
            config={
                "loop": loop,
                "config": config,
                "at": dies_at,
                "marker": str(self.folder / f"{name}-died"),
                "then": [
                    {"loop": other, "config": told, "environment": self.environment(label, **more)}
                    for label, other, told, more in then
                ],
            },
            num_ranks=num_ranks,
            max_failures=1,
            environment=self.environment(name),
        )

    def environment(self, name: str, **more: str) -> dict[str, str]:
        progress_file = str(self.folder / f"{name}.jsonl")
        return {"TRAIN_OUTPUT_DIR": str(self.output(name)), "TRAIN_PROGRESS_FILE": progress_file, **more}

    def results(self, name: str) -> list[dict[str, Any]]:
        """Of the loop, and of those run after it; fails unless the rank did die."""
        answer = self.answers[name].result(timeout=WITHIN_S)
        assert "error" not in answer, answer["error"]
        assert (self.folder / f"{name}-died").exists()
        return answer["result"]

    def output(self, name: str) -> Path:
        return self.folder / f"{name}-output"

    def progress(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / f"{name}.jsonl").read_text().splitlines()]

    def checkpoints(self, name: str) -> list[Path]:
        return sorted((self.folder / "storage" / name).glob("checkpoint_*/"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("loops")
    sft = {
        "model": str(make_tiny_model(folder / "model")),
        "dataset": str(write_conversations(folder / "learn.jsonl", numbered_pairs(21))),
        "eval_dataset": str(write_conversations(folder / "held-out.jsonl", numbered_pairs(5))),
        "batch_size": 2,
        "max_steps": 8,
        "learning_rate": 0.01,
        "checkpoint_every_steps": 3,
        "sample_prompts": ["what is number 3?"],
        "sample_max_tokens": 4,
    }
    full = {**sft, "method": "full"}
    lora = {**sft, "gradient_accumulation_steps": 2, "lora": {"dropout": 0.3}}
    (folder / "stop").touch()
    then = [
        ("lora-2-calm", SFT, lora, {}),
        ("stopped-2", SFT, lora, {"TRAIN_STOP_FILE": str(folder / "stop")}),
    ]
    with ray_train() as fits:
        made = Runs(fits, folder)
        made.start("lora-2", SFT, lora, num_ranks=2, dies_at=5, then=then)
        made.start("ddp-1", DDP, DDP_CONFIG, num_ranks=1, dies_at=6, then=[("full-1", SFT, full, {})])
        made.start("ddp-2", DDP, DDP_CONFIG, num_ranks=2, dies_at=6)
        yield made


def ddp_weights(runs: Runs, name: str) -> dict[str, torch.Tensor]:
    return torch.load(runs.output(name) / "model.pt", weights_only=True)


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def plain_arithmetic(num_ranks: int) -> dict[str, torch.Tensor]:
    """What `torch_ddp` has to give, without ranks or checkpoints: gradients are means over the ranks."""
    cfg = TorchDdpConfig(**DDP_CONFIG)
    torch.manual_seed(cfg.seed)
    model = torch_ddp.build_model(cfg)
    optimizer = torch.optim.Adam(model.parameters(), lr=cfg.learning_rate)
    for step in range(cfg.steps):
        optimizer.zero_grad()
        for rank in range(num_ranks):
            inputs, targets = torch_ddp.batch(cfg, step, rank)
            (torch.nn.functional.mse_loss(model(inputs), targets) / num_ranks).backward()
        optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_torch_ddp_that_lost_a_rank_ends_like_plain_arithmetic(runs: Runs, num_ranks: int) -> None:
    """R5: died at step 6, retried from the checkpoint of step 4, and bit for bit what calm steps give.

    Otherwise a job that was ever preempted is another experiment than the one its user described.
    """
    said = runs.results(f"ddp-{num_ranks}")[0]
    assert (said["steps"], said["started_from"], said["stopped"]) == (12, 4, False)
    assert_same(ddp_weights(runs, f"ddp-{num_ranks}"), plain_arithmetic(num_ranks))


def test_two_ranks_learn_more_than_the_data_of_one() -> None:
    """Otherwise the test above could not tell a gang from one rank repeated."""
    assert not torch.equal(plain_arithmetic(1)["0.weight"], plain_arithmetic(2)["0.weight"])


def test_progress_is_told_once_for_all_ranks(runs: Runs) -> None:
    """Two ranks that both write would show every step twice."""
    runs.results("ddp-2")
    lines = runs.progress("ddp-2")
    assert lines[0]["phase"] == "loading"
    last = next(line for line in reversed(lines) if "loss" in line)
    assert (last["step"], last["total_steps"]) == (12, 12)
    assert sum(line["phase"] == "loading" for line in lines) == 2, "once in each of the two tries"


def test_sft_trains_every_weight_on_one_rank(runs: Runs) -> None:
    """The held-out loss goes down and a whole model comes out."""
    said = runs.results("ddp-1")[1]
    assert said["eval_loss_after"] < said["eval_loss_before"]
    assert said["num_trainable"] == said["num_parameters"]
    assert (runs.output("full-1") / "model.safetensors").exists()


def test_sft_on_two_ranks_continues_exactly_after_one_died(runs: Runs) -> None:
    """R5: weights, optimizer, schedule, data position and each rank's random state (dropout!) all return."""
    died, calm, _ = runs.results("lora-2")
    left, right = (load_file(runs.output(n) / "adapter_model.safetensors") for n in ("lora-2", "lora-2-calm"))
    assert_same(left, right)
    assert calm["eval_loss_after"] < calm["eval_loss_before"]
    for key in ("steps", "eval_loss_before", "eval_loss_after", "samples"):
        assert calm[key] == died[key], key
    assert calm["train_loss"] == pytest.approx(died["train_loss"])


def test_a_checkpoint_of_two_ranks_is_complete(runs: Runs) -> None:
    """The model from rank 0 and the random state of each; without it a resume is inexact in silence."""
    runs.results("lora-2")
    checkpoints = runs.checkpoints("lora-2")
    assert len(checkpoints) == 7, "of steps 3, 6 and 8, the same of the calm run, and 1 of the stopped one"
    for checkpoint in checkpoints:
        names = {path.name for path in checkpoint.iterdir()}
        assert {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt", "scheduler.pt"} <= names
        assert {"trainer_state.json", "adapter_model.safetensors", "answers_before.json"} <= names


def test_two_ranks_stop_at_the_same_step(runs: Runs) -> None:
    """Only rank 0 looks for the request; a rank that went on alone would wait for the other for ever."""
    assert runs.results("lora-2")[2] == {"stopped": True, "steps": 1}
    assert not runs.output("stopped-2").exists()
