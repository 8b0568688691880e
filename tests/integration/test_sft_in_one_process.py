"""What fine-tuning promises, shown on a tiny model in this process: one rank, no cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.deaths import acting
from tests.one_rank import Job, one_thread
from tests.tiny_model import make_tiny_model, numbered_pairs, write_conversations

SFT = "train_loops.sft:train"
few_threads = pytest.fixture(scope="module", autouse=True)(one_thread)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("sft")
    return {
        "model": str(make_tiny_model(folder / "model")),
        "dataset": str(write_conversations(folder / "learn.jsonl", numbered_pairs(21))),
        "eval_dataset": str(write_conversations(folder / "held-out.jsonl", numbered_pairs(5))),
    }


@pytest.fixture
def job(
    tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Job]]:
    def make(name: str = "job", **config: Any) -> Job:
        made = Job(
            SFT, tmp_path / name, {**files, "max_steps": 4, "batch_size": 2, "learning_rate": 0.01, **config}
        )
        made.tell(monkeypatch)
        return made

    return make


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], object]], None]:
    """Do something once, at the end of a step, before its checkpoint is written."""
    from train_loops.trainer import TrainReport

    def arrange(step: int, act: Callable[[], object]) -> None:
        original, done = TrainReport.on_step_begin, []

        def on_step_begin(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == step and not done:
                done.append(True)
                act()
            original(self, args, state, control, **kwargs)

        monkeypatch.setattr(TrainReport, "on_step_begin", on_step_begin)

    return arrange


def fail() -> None:
    raise RuntimeError("pulled the plug")


def weights(run: Job) -> dict[str, torch.Tensor]:
    return load_file(next(run.output.glob("*model.safetensors")))


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_model_learns_and_its_result_opens(job: Callable[..., Job], method: str) -> None:
    """The whole point: the held-out loss goes down, and what was saved gives that loss again."""
    from transformers import AutoModelForCausalLM

    run = job(method=method, max_steps=20, sample_prompts=["what is number 3?"], sample_max_tokens=4)
    said = run.run()
    assert said["steps"] == 20
    assert said["eval_loss_after"] < said["eval_loss_before"] - 0.1
    assert said["train_loss"] < said["eval_loss_before"]
    assert (said["num_trainable"] < said["num_parameters"]) == (method == "lora")
    assert [set(sample) for sample in said["samples"]] == [{"prompt", "before", "after"}]
    assert said["output_dir"] == str(run.output)
    assert json.dumps(said)

    model = AutoModelForCausalLM.from_pretrained(run.output)  # an adapter names its base model
    assert model.config.use_cache
    assert eval_loss(model, run.config) == pytest.approx(said["eval_loss_after"], abs=1e-4)


def eval_loss(model: Any, config: dict[str, Any]) -> float:
    """Written apart from the Trainer: the mean over batches, weighted by their rows."""
    from transformers import AutoTokenizer

    from train_loops.data import PadBatch, load_examples

    tokenizer = AutoTokenizer.from_pretrained(config["model"])
    items = load_examples(config["eval_dataset"], tokenizer, 1024).items
    size = config["batch_size"]
    model.eval()
    losses = []
    for start in range(0, len(items), size):
        rows = items[start : start + size]
        with torch.no_grad():
            losses += [model(**PadBatch(0)(rows)).loss.item()] * size
    return sum(losses[: len(items)]) / len(items)


def test_progress_tells_every_phase_and_each_step_with_its_own_loss(job: Callable[..., Job]) -> None:
    """A page that shows the loss of another step, or `loading` for ever, is what users complain about."""
    run = job()
    run.run()
    lines = run.lines()
    phases = [line["phase"] for line in lines]
    assert phases[0] == "loading"
    assert set(phases) == {"loading", "training", "saving"}
    assert phases[-1] == "saving"
    merged: dict[str, Any] = {}
    for line in lines:
        merged |= line
    assert (merged["step"], merged["total_steps"]) == (4, 4)
    assert merged["tokens_per_s"] > 0
    assert {"loss", "learning_rate", "grad_norm", "epoch", "eval_loss", "time"} <= merged.keys()
    assert all("step" in line for line in lines if "loss" in line)


def told_samples(run: Job) -> list[tuple[int, list[str]]]:
    return [
        (line["step"], [sample["text"] for sample in line["samples"]])
        for line in run.lines()
        if "samples" in line
    ]


PROMPTS = {"sample_prompts": ["what is number 3?", "what is number 7?"], "sample_max_tokens": 4}


def test_samples_are_told_before_at_each_evaluation_and_at_the_end(job: Callable[..., Job]) -> None:
    """Each once, and not again with every number: a line of progress must stay short."""
    run = job(eval_every_steps=2, **PROMPTS)
    said = run.run()
    told = told_samples(run)
    assert [step for step, _ in told] == [0, 2, 4]
    assert [sample["before"] for sample in said["samples"]] == told[0][1]
    assert [sample["after"] for sample in said["samples"]] == told[-1][1]
    assert all(len(texts) == 2 for _, texts in told)


def test_samples_are_told_as_often_as_the_job_says(job: Callable[..., Job]) -> None:
    run = job(sample_every_steps=3, eval_every_steps=2, max_steps=7, **PROMPTS)
    run.run()
    assert [step for step, _ in told_samples(run)] == [0, 3, 6, 7]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_asking_for_samples_changes_no_later_loss(job: Callable[..., Job], method: str) -> None:
    """Dropout would go on in eval mode or with other random numbers, and no two runs could be compared."""
    settings = {"method": method, "max_steps": 6, "lora": {"dropout": 0.3}}
    silent = job("silent", **settings)
    silent.run()
    asked = job("asked", sample_every_steps=1, **PROMPTS, **settings)
    asked.run()
    assert len(told_samples(asked)) == 7
    assert asked.losses == silent.losses
    assert same(weights(asked), weights(silent))


def test_a_run_that_is_resumed_and_asked_ends_as_one_that_was_never_asked(
    job: Callable[..., Job], at_step: Any
) -> None:
    """Exact resumption holds beside the samples."""
    settings = {"max_steps": 6, "lora": {"dropout": 0.3}}
    silent = job("silent", **settings)
    silent.run()
    stopped = job("stopped", sample_every_steps=2, **PROMPTS, **settings)
    at_step(2, stopped.stop_file.touch)
    assert stopped.run() == {"stopped": True, "steps": 3}
    stopped.stop_file.unlink()
    stopped.run()
    assert [step for step, _ in told_samples(stopped)] == [0, 2, 4, 6]
    assert same(weights(stopped), weights(silent))


def test_the_held_out_loss_is_told_with_its_own_step(job: Callable[..., Job]) -> None:
    """Lines that come fast are merged: the loss of step 2 must not appear at step 3."""
    run = job(eval_every_steps=2, max_steps=6)
    run.run()
    assert [line["step"] for line in run.lines() if "eval_loss" in line] == [0, 2, 4, 6]


def test_a_stop_is_obeyed_with_a_checkpoint_and_the_rest_comes_later(
    job: Callable[..., Job], at_step: Any
) -> None:
    """Pausing a job must cost at most the step it is in, and change nothing in the result."""
    undisturbed = job("undisturbed", max_steps=6)
    undisturbed.run()

    stopped = job("stopped", max_steps=6)
    at_step(2, stopped.stop_file.touch)
    assert stopped.run() == {"stopped": True, "steps": 3}
    assert [metrics["step"] for metrics in stopped.reported] == [3]
    assert not stopped.output.exists()

    stopped.stop_file.unlink()
    assert stopped.run()["steps"] == 6
    assert same(weights(stopped), weights(undisturbed))


def test_a_stop_before_the_first_step_saves_nothing(job: Callable[..., Job]) -> None:
    """There is nothing to save yet, or nothing new: a pause then costs no checkpoint, and no evaluation."""
    run = job(max_steps=6)
    run.stop_file.touch()
    assert run.run() == {"stopped": True, "steps": 0}
    assert run.losses == []

    run.stop_file.unlink()
    with acting(3, "in the step", run.stop_file.touch):
        run.run()
    assert run.run() == {"stopped": True, "steps": 3}
    assert [metrics["step"] for metrics in run.reported] == [3]


def test_a_stop_while_the_model_is_loaded_takes_no_step(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading takes minutes and the first evaluation too; whoever asked in between waits for neither."""
    from train_loops import sft

    run, load_model = job(), sft.load_model
    monkeypatch.setattr(sft, "load_model", lambda cfg: (run.stop_file.touch(), load_model(cfg))[1])
    assert run.run() == {"stopped": True, "steps": 0}
    assert run.losses == []
    assert "stop_seen" in run.lines()[-1]


def test_a_resumed_run_says_what_it_checked_and_what_differs(
    job: Callable[..., Job], files: dict[str, str], tmp_path: Path
) -> None:
    """A job resumed with other data, settings or base weights is another experiment, and has to say so."""
    from tests.tiny_model import make_tiny_model

    run = job()
    with acting(2, "in the step", run.stop_file.touch):
        run.run()
    run.stop_file.unlink()
    other = write_conversations(tmp_path / "other.jsonl", numbered_pairs(22))
    model = make_tiny_model(tmp_path / "model", seed=8)
    run.config |= {"dataset": str(other), "model": str(model), "learning_rate": 0.02, "log_every_steps": 2}
    run.run()
    (certificate,) = run.certificates
    assert certificate["step"] == 2
    for part in ("training data: 22 examples", "frozen weights", "learning_rate is 0.02, was 0.01"):
        assert sum(part in sentence for sentence in certificate["differs"]) == 1, part
    assert len(certificate["differs"]) == 3
    same = (
        "weights: 28 tensors",
        "optimizer: moments of 28",
        "schedule: at step 2",
        "data position: 2 of 11",
    )
    for part in (*same, "held-out data"):
        assert any(sentence.startswith(part) for sentence in certificate["checked"]), part
    assert any(line.get("resumed") == certificate for line in run.lines())


def test_weights_that_were_not_loaded_are_said(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaders pass over names they do not know; such a run would start anew and look resumed."""
    from train_loops import trainer

    run = job()
    with acting(2, "in the step", run.stop_file.touch):
        run.run()
    run.stop_file.unlink()
    monkeypatch.setattr(trainer.Trainer, "_load_from_checkpoint", lambda *_, **__: None)
    monkeypatch.setattr(trainer.Trainer, "_load_optimizer_and_scheduler", lambda *_, **__: None)
    run.run()
    differs = run.certificates[0]["differs"]
    assert [sentence.split(":")[0] for sentence in differs] == ["weights", "optimizer", "schedule"]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_crash_after_the_last_step_takes_no_step_too_many(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The last checkpoint is there, the result is not: only saving is left."""
    from train_loops import sft

    run = job(method=method, sample_prompts=["what is number 3?"], sample_max_tokens=4)
    save_result = sft.save_result
    monkeypatch.setattr(sft, "save_result", lambda *_: fail())
    with pytest.raises(RuntimeError, match="pulled the plug"):
        run.run()
    monkeypatch.setattr(sft, "save_result", save_result)
    said = run.run()
    assert said["steps"] == 4
    assert len(run.reported) == 1
    assert said["samples"][0]["before"] is not None
    assert said["eval_loss_after"] < said["eval_loss_before"]
    kept = load_file(next(Path(run.checkpoint.path).glob("*model.safetensors")))
    assert same(weights(run), kept)


def test_a_loss_that_is_no_number_ends_the_run_before_the_step(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise hours go into NaN weights, and the good checkpoints are rotated away."""
    from train_loops import trainer

    real = trainer.Trainer.training_step

    def training_step(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = real(self, *args, **kwargs)
        return loss * float("nan") if self.state.global_step == 2 else loss

    monkeypatch.setattr(trainer.Trainer, "training_step", training_step)
    run = job(checkpoint_every_steps=1)
    with pytest.raises(ArithmeticError, match=r"the loss is not finite at step 3.*learning_rate"):
        run.run()
    assert [metrics["step"] for metrics in run.reported] == [1, 2]


@pytest.mark.parametrize("max_grad_norm", [1.0, 0.0])
def test_a_gradient_that_is_no_number_ends_the_run_before_the_step(
    job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, max_grad_norm: float
) -> None:
    """A loss can be finite and its gradient not; one such step makes every weight NaN."""
    real = torch.Tensor.backward

    def backward(self: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        if len(run.losses) == 3:  # the evaluation before, and two steps
            next(p for p in model[0].parameters() if p.grad is not None).grad.view(-1)[0] = float("inf")

    from train_loops import sft

    model: list[Any] = []
    load_model = sft.load_model
    monkeypatch.setattr(sft, "load_model", lambda cfg: model.append(load_model(cfg)) or model[-1])
    monkeypatch.setattr(torch.Tensor, "backward", backward)
    run = job(checkpoint_every_steps=1, max_grad_norm=max_grad_norm)
    with pytest.raises(ArithmeticError, match="the gradient is not finite at step 3"):
        run.run()
    assert [metrics["step"] for metrics in run.reported] == [1, 2]


def test_bf16_computes_in_bf16_and_trains(job: Callable[..., Job]) -> None:
    """The path GPUs take by default; a CPU can walk it too."""
    said = job(precision="bf16", max_steps=10).run()
    assert said["eval_loss_after"] < said["eval_loss_before"]


def test_nothing_is_left_in_the_temporary_folder(
    job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints are gigabytes; a node's disk would fill within days."""
    import tempfile

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    run = job(checkpoint_every_steps=2)
    run.run()
    assert len(run.reported) == 2
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_result_replaces_an_older_one_whole(job: Callable[..., Job]) -> None:
    """A retried run finds what its predecessor left; nobody must ever read half of each."""
    run = job()
    run.output.mkdir()
    (run.output / "old").touch()
    run.run()
    assert not (run.output / "old").exists()
    assert (run.output / "adapter_model.safetensors").exists()
    assert sorted(path.name for path in run.folder.iterdir()) == ["checkpoint-0", "output", "progress"]
