"""What a resumed run must find as it was, and the report that says what it found.

For loops of your own too.  Weights, optimizer and step are the loop's; this module keeps the rest:

    facts = RunFacts.here(num_ranks, config={"learning_rate": 0.1}, inputs={"training data": fingerprint})

    # saving: on every rank, into the folder that this rank reports
    save_random_state(folder, rank)
    if rank == 0:
        facts.write(folder, step)

    # resuming: on every rank, from the checkpoint's folder
    report = compare(folder, step, facts)
    restore_random_state(folder, rank)
    progress.say("loading", step=report.step, resumed=report.as_json())
"""

from __future__ import annotations

import json
import platform
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from ray.train.torch import get_device

FACTS_FILE = "resume.json"
PACKAGES = ("torch", "numpy")


@dataclass(slots=True)
class ResumeReport:
    """Sentences on a resumed run: what was looked at and found equal, and what is not as it was."""

    step: int
    """The last step that the checkpoint contains."""
    checked: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    """Empty: the run goes on as if it had never stopped."""

    def say(self, *, same: bool, sentence: str, otherwise: str) -> None:
        (self.checked if same else self.differs).append(sentence if same else otherwise)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What decides, besides the state in a checkpoint, whether a run goes on exactly."""

    num_ranks: int
    config: dict[str, Any]
    """Settings that change the result, as JSON values."""
    inputs: dict[str, str]
    """Name -> fingerprint of data and of weights that are not trained."""
    versions: dict[str, str]
    device: str

    @classmethod
    def here(
        cls,
        num_ranks: int,
        *,
        config: Mapping[str, Any],
        inputs: Mapping[str, str] | None = None,
        packages: Sequence[str] = (),
    ) -> Self:
        """The facts of this process.  *packages*: installed ones that compute, besides torch and numpy."""
        versions = {"python": platform.python_version()}
        versions |= {name: version(name) for name in (*PACKAGES, *packages)}
        return cls(num_ranks, json.loads(json.dumps(dict(config))), dict(inputs or {}), versions, device())

    def write(self, folder: Path, step: int) -> None:
        """Put them into a checkpoint that contains *step*."""
        text = json.dumps({"step": step, **asdict(self)}, indent=1)
        (folder / FACTS_FILE).write_text(text, encoding="utf-8")


def device() -> str:
    """The kind of device.  On a CPU, sums are split by its vector width and the number of threads."""
    if get_device().type == "cuda":
        return torch.cuda.get_device_name()
    return f"cpu with {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def compare(
    folder: Path, step: int, now: RunFacts, random_files: Sequence[str] | None = None
) -> ResumeReport:
    """What the checkpoint of *step* in *folder* says of the run that saved it, against *now*.

    *random_files*: where a loop that does not use `save_random_state` keeps the random state of each rank.
    Raises ValueError or KeyError when what the checkpoint says cannot be read.
    """
    report = ResumeReport(step)
    if not (folder / FACTS_FILE).exists():
        report.differs.append(f"nothing is known of the run that saved this: there is no {FACTS_FILE}")
        return report
    then = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    report.say(
        same=then["step"] == step,
        sentence=f"step: {step}",
        otherwise=f"step is {step}, but {FACTS_FILE} was written for step {then['step']}",
    )
    report.say(
        same=then["num_ranks"] == now.num_ranks,
        sentence=f"number of ranks: {now.num_ranks}",
        otherwise=f"number of ranks is {now.num_ranks}, was {then['num_ranks']}: examples are shared out anew, "
        "so their order differs from here on",
    )
    expected = [random_state_file(rank) for rank in range(now.num_ranks)]
    report.say(
        same=all((folder / name).is_file() for name in random_files or expected),
        sentence="random state: found for each rank",
        otherwise="random state: not found for each rank, so dropout differs from here on",
    )
    for what, value in now.inputs.items():
        was = then["inputs"].get(what, "not there")
        report.say(same=was == value, sentence=f"{what}: {value}", otherwise=f"{what}: {value}, was {was}")
    _compare_all(report, "config", then["config"], now.config)
    _compare_all(report, "versions", then["versions"], now.versions)
    report.say(
        same=then["device"] == now.device,
        sentence=f"device: {now.device}",
        otherwise=f"device is {now.device}, was {then['device']}",
    )
    return report


def _compare_all(report: ResumeReport, what: str, then: dict[str, Any], now: dict[str, Any]) -> None:
    """One sentence when all are equal, else one for each that is not."""
    changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    report.differs += [f"{what}: {name} is {now.get(name)}, was {then.get(name)}" for name in changed]
    if not changed:
        report.checked.append(f"{what}: {', '.join(f'{name} {value}' for name, value in now.items())}")


def random_state_file(rank: int) -> str:
    return f"random_{rank}.pt"


def save_random_state(folder: Path, rank: int) -> None:
    """Of Python, numpy and torch in this process; rank *rank* needs exactly these to go on."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    state = {
        "python": random.getstate(),
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }
    torch.save(state, folder / random_state_file(rank))


def restore_random_state(folder: Path, rank: int) -> None:
    """Put back what `save_random_state` kept; changes nothing when there was no such rank."""
    file = folder / random_state_file(rank)
    if not file.exists():
        return
    state = torch.load(file, map_location="cpu", weights_only=True)
    random.setstate(state["python"])
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
