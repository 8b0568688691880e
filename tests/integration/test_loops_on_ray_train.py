"""The built-in loops under the real Ray Train: on one rank and on two, each killed again and again on the way.

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
from tests.one_rank import Job
from tests.tiny_model import make_tiny_model, numbered_pairs, write_conversations
from train_loops import torch_ddp
from train_loops.config import TorchDdpConfig

pytestmark = pytest.mark.ray
SFT, DDP = "train_loops.sft:train", "train_loops.torch_ddp:train"
WITHIN_S = 240
UPLOAD_S = 1.5
DDP_CONFIG = {"steps": 12, "checkpoint_every_steps": 4, "batch_size": 8, "dropout": 0.3, "seed": 3}
DEATHS = [(1, "in the step"), (4, "while saving"), (4, "after saving"), (7, "before saving")]


class Runs:
    """Starts runs, and knows where each puts what."""

    def __init__(self, fits: Fits, folder: Path) -> None:
        self.fits, self.folder = fits, folder
        self.configs: dict[str, dict[str, Any]] = {}
        self.answers: dict[str, Future[dict[str, Any]]] = {}

    def start(
        self,
        name: str,
        loop: str,
        config: dict[str, Any],
        *,
        num_ranks: int,
        deaths: list[tuple[int, str]],
        last_death: tuple[int, str],
        upload_s: float = 0.0,
        then: Any = (),
    ) -> None:
        """Run *loop* through all of these deaths; when it is through, run *then* in the same ranks."""
        self.configs[name] = config
        self.answers[name] = self.fits.run(
            name,
            storage=str(self.folder / "storage"),
            loop="tests.killed:killed",
            config={
                **self.part(name, loop, config),
                "deaths": deaths,
                "last_death": last_death,
                "upload_s": upload_s,
                "marker": str(self.folder / f"{name}-died"),
                "then": [self.part(*part, **more) for *part, more in then],
            },
            num_ranks=num_ranks,
            max_failures=1,
            environment=self.environment(name),
        )

    def part(self, name: str, loop: str, config: dict[str, Any], **more: str) -> dict[str, Any]:
        given = {"checkpoint": more.pop("checkpoint")} if "checkpoint" in more else {}
        told, environment = str(self.folder / f"{name}-told"), self.environment(name, **more)
        return {"loop": loop, "config": config, "told": told, "environment": environment, **given}

    def environment(self, name: str, **more: str) -> dict[str, str]:
        progress_file = str(self.folder / f"{name}.jsonl")
        stop_file = str(self.folder / f"{name}-stop")
        told = {"TRAIN_OUTPUT_DIR": str(self.output(name)), "TRAIN_PROGRESS_FILE": progress_file}
        return {**told, "TRAIN_STOP_FILE": stop_file, **more}

    def results(self, name: str) -> list[dict[str, Any]]:
        """Of the loop, and of those run after it; fails unless the rank did die."""
        answer = self.answers[name].result(timeout=WITHIN_S)
        assert "error" not in answer, answer["error"]
        assert (self.folder / f"{name}-died").exists()
        return answer["result"]

    def output(self, name: str) -> Path:
        return self.folder / f"{name}-output"

    def lines(self, file: str) -> list[Any]:
        return [json.loads(line) for line in (self.folder / file).read_text().splitlines()]

    def losses(self, name: str) -> set[tuple[str, int, float]]:
        return {
            (what, step, value) for what, step, value, _ in self.lines(f"{name}-told") if what != "resumed"
        }

    def certificates(self, name: str) -> list[dict[str, Any]]:
        return [value for what, _, value, _ in self.lines(f"{name}-told") if what == "resumed"]

    def checkpoints(self, name: str) -> list[Path]:
        return sorted((self.folder / "storage" / name).glob("checkpoint_*/"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("loops")
    sft = {
        "model": str(make_tiny_model(folder / "model", attention_dropout=0.1)),
        "dataset": str(write_conversations(folder / "learn.jsonl", numbered_pairs(21))),
        "eval_dataset": str(write_conversations(folder / "held-out.jsonl", numbered_pairs(5))),
        "batch_size": 2,
        "max_steps": 8,
        "learning_rate": 0.01,
        "warmup_steps": 2,
        "checkpoint_every_steps": 3,
        "eval_every_steps": 2,
        "sample_prompts": ["what is number 3?"],
        "sample_max_tokens": 4,
    }
    full = {**sft, "method": "full"}
    # 21 examples on 2 ranks in batches of 2 are 6 passes a rank: a step of 4, and at the epoch's end one of 2.
    lora = {**sft, "gradient_accumulation_steps": 4, "lora": {"dropout": 0.3}}
    alone = one_rank_checkpoint(folder / "alone", lora)
    (folder / "stop").touch()
    stop = {"TRAIN_STOP_FILE": str(folder / "stop")}
    then = [
        ("lora-2-calm", SFT, lora, {}),
        ("stopped-2", SFT, lora, stop),
        ("grown-2", SFT, lora, {"checkpoint": alone}),
    ]
    deaths = [(2, "in the step"), (3, "after saving"), (5, "before saving"), (6, "while saving")]
    with ray_train() as fits:
        made = Runs(fits, folder)
        made.start("lora-2", SFT, lora, num_ranks=2, deaths=deaths, last_death=(7, "in the step"), then=then)
        made.start(
            "ddp-2", DDP, DDP_CONFIG, num_ranks=2, deaths=DEATHS, last_death=(10, "in the step"), upload_s=UPLOAD_S
        )  # fmt: skip
        made.start(
            "full-1",
            SFT,
            full,
            num_ranks=1,
            deaths=deaths,
            last_death=(7, "before saving"),
            then=[("full-1-calm", SFT, full, {}), ("ddp-1", DDP, DDP_CONFIG, {})],
        )
        yield made


def one_rank_checkpoint(folder: Path, config: dict[str, Any]) -> str:
    job = Job(SFT, folder, {**config, "max_steps": 2})
    with pytest.MonkeyPatch.context() as monkeypatch:
        job.tell(monkeypatch)
        job.run()
    return job.checkpoint.path


def ddp_weights(runs: Runs, name: str) -> dict[str, torch.Tensor]:
    return torch.load(runs.output(name) / "model.pt", weights_only=True)


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def plain_arithmetic(num_ranks: int) -> tuple[dict[str, torch.Tensor], set[tuple[str, int, float]]]:
    """What `torch_ddp` has to give, without ranks or checkpoints: the weights, and rank 0's losses.

    Gradients are means over the ranks, and each rank draws its own random numbers for dropout.
    """
    cfg = TorchDdpConfig(**DDP_CONFIG)
    torch.manual_seed(cfg.seed)
    model = torch_ddp.build_model(cfg)
    optimizer = torch.optim.Adam(model.parameters(), lr=cfg.learning_rate)
    draws = [torch_ddp.seed_of_rank(cfg, rank).get_state() for rank in range(num_ranks)]
    losses: set[tuple[str, int, float]] = set()
    for step in range(cfg.steps):
        optimizer.zero_grad()
        for rank in range(num_ranks):
            torch.set_rng_state(draws[rank])
            inputs, targets = torch_ddp.batch(cfg, step, rank)
            loss = torch.nn.functional.mse_loss(model(inputs), targets)
            draws[rank] = torch.get_rng_state()
            (loss / num_ranks).backward()
            if rank == 0:
                losses.add(("loss", step + 1, loss.item()))
        optimizer.step()
    return model.state_dict(), losses


def test_torch_ddp_on_two_ranks_that_died_everywhere_is_plain_arithmetic(runs: Runs) -> None:
    """R5: bit for bit what calm steps give, at each step, with a random state of its own for each rank.

    Otherwise a job that was ever preempted is another experiment than the one its user described.
    """
    said = runs.results("ddp-2")[0]
    assert (said["steps"], said["stopped"]) == (12, False)
    weights, losses = plain_arithmetic(2)
    assert runs.losses("ddp-2") == losses
    assert_same(ddp_weights(runs, "ddp-2"), weights)


@pytest.mark.long
def test_torch_ddp_on_one_rank_is_plain_arithmetic(runs: Runs) -> None:
    """Otherwise the test above could not tell a gang from one rank repeated."""
    runs.results("full-1")
    weights, losses = plain_arithmetic(1)
    assert runs.losses("ddp-1") == losses
    assert_same(ddp_weights(runs, "ddp-1"), weights)
    assert not torch.equal(weights["0.weight"], plain_arithmetic(2)[0]["0.weight"])


def test_training_goes_on_while_a_checkpoint_is_uploaded(runs: Runs) -> None:
    """Storage that takes minutes would otherwise take them from training, each time."""
    runs.results("ddp-2")
    told = [(step, at_s) for name, step, _, at_s in runs.lines("ddp-2-told") if name == "loss"]
    saved_at = max(at_s for step, at_s in told if step == 8)
    went_on_at = min(at_s for step, at_s in told if step == 9 and at_s > saved_at)
    assert went_on_at - saved_at < UPLOAD_S


def test_a_loop_that_raises_loses_no_checkpoint_it_has_written(runs: Runs) -> None:
    """Ray Train forgets what is being uploaded when a loop raises; the whole way to the next one is lost."""
    runs.results("ddp-2")
    steps = [certificate["step"] for certificate in runs.certificates("ddp-2")]
    # Thrown out at 1, while saving 4, after saving 4, at 7.  Then the kill, perhaps before 8 was uploaded.
    assert steps[:2] == [4, 4]
    assert steps[2] in (4, 8)


def test_all_checkpoints_are_complete_when_the_loop_has_returned(runs: Runs) -> None:
    """The last one was still on its way when the last step was done."""
    runs.results("ddp-2")
    newest = runs.checkpoints("ddp-2")[-1]
    names = {path.name for path in newest.iterdir()}
    assert names == {"state.pt", "resume.json", "random_0.pt", "random_1.pt"}
    assert json.loads((newest / "resume.json").read_text())["step"] == 12


def test_progress_is_told_once_for_all_ranks(runs: Runs) -> None:
    """Two ranks that both write would show every step twice."""
    runs.results("ddp-2")
    lines = runs.lines("ddp-2.jsonl")
    assert lines[0]["phase"] == "loading"
    last = next(line for line in reversed(lines) if "loss" in line)
    assert (last["step"], last["total_steps"]) == (12, 12)
    assert [line["resumed"]["step"] for line in lines if "resumed" in line] == [
        certificate["step"] for certificate in runs.certificates("ddp-2")
    ]


@pytest.mark.parametrize(
    ("name", "file"), [("lora-2", "adapter_model.safetensors"), ("full-1", "model.safetensors")]
)
def test_sft_that_died_everywhere_continues_exactly(runs: Runs, name: str, file: str) -> None:
    """R5: weights, optimizer, schedule, data position and each rank's random state (dropout!) all return."""
    died, calm, _ = runs.results(name)[:3]
    assert runs.losses(name) == runs.losses(f"{name}-calm")
    assert_same(*(load_file(runs.output(run) / file) for run in (name, f"{name}-calm")))
    assert calm["eval_loss_after"] < calm["eval_loss_before"]
    for key in ("steps", "eval_loss_before", "eval_loss_after", "samples"):
        assert calm[key] == died[key], key
    assert calm["train_loss"] == pytest.approx(died["train_loss"])
    certificates = runs.certificates(name)
    assert [certificate["step"] for certificate in certificates[:3]] == [3, 3, 3]
    assert [certificate["differs"] for certificate in certificates] == [[]] * len(certificates)


def test_a_checkpoint_of_two_ranks_is_complete(runs: Runs) -> None:
    """The model from rank 0 and the random state of each; without it a resume is inexact in silence."""
    runs.results("lora-2")
    for checkpoint in runs.checkpoints("lora-2"):
        assert {path.name for path in checkpoint.iterdir()} == {
            *("adapter_model.safetensors", "adapter_config.json", "README.md"),
            *("optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state_0.pth", "rng_state_1.pth"),
            *("answers_before.json", "resume.json"),
        }


def test_a_checkpoint_of_one_rank_goes_on_with_two_and_says_what_differs(runs: Runs) -> None:
    """A gang that has to shrink or grow goes on; but nobody may take it for the run it was."""
    said = runs.results("lora-2")[3]
    assert said["steps"] == 8
    (certificate,) = runs.certificates("grown-2")
    assert certificate["step"] == 2
    assert any("number of ranks is 2, was 1" in sentence for sentence in certificate["differs"])
    assert any("random state" in sentence for sentence in certificate["differs"])
    assert "data position: goes on after 1.000 epochs, was after 0.727" in certificate["differs"]
    assert any("weights" in sentence for sentence in certificate["checked"])


@pytest.mark.parametrize(("name", "loop"), [("lora-2", SFT), ("ddp-2", DDP)])
def test_a_checkpoint_of_two_ranks_goes_on_with_one(
    runs: Runs, name: str, loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, for a gang that has lost a node."""
    from ray.train import Checkpoint

    runs.results(name)
    config = runs.configs[name]
    job = Job(loop, tmp_path / "job", config)
    job.tell(monkeypatch)
    job.checkpoint = Checkpoint(str(runs.checkpoints(name)[0]))
    first = json.loads(Path(job.checkpoint.path, "resume.json").read_text())["step"]
    total_steps = config.get("max_steps") or config["steps"]
    assert job.run()["steps"] == total_steps
    assert min(step for _, step, _ in job.losses) == first + 1
    (certificate,) = job.certificates
    assert any("number of ranks is 1, was 2" in sentence for sentence in certificate["differs"])


def test_two_ranks_asked_to_stop_before_their_first_step_take_none(runs: Runs) -> None:
    """Only rank 0 looks for the request; a rank that went on alone would wait for the other for ever."""
    assert runs.results("lora-2")[2] == {"stopped": True, "steps": 0}
    assert not runs.output("stopped-2").exists()
    assert not (runs.folder / "stopped-2-told").exists(), "no step was told"
    assert any("stop_seen" in line for line in runs.lines("stopped-2.jsonl"))
