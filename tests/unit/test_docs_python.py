"""The examples of docs/python.md do what they say."""

from __future__ import annotations

import base64
import doctest
import re
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from served import ScriptedRunner, Served, scheduler_at

from scheduler.core.lifecycle import StartRun
from scheduler.core.model import Cause, Ending, Outcome, Reason
from scheduler.engine.spec_validation import SpecValidator
from scheduler.ports import Run

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "python.md"
_EXAMPLE = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


class _Runner(ScriptedRunner):
    """Calls a function that was sent along; says three losses otherwise."""

    async def start(self, action: StartRun) -> None:
        lines = [{"time": float(step), "step": step, "loss": 3 / step} for step in (1, 2, 3)]
        config = action.spec.config if action.spec.code else action.spec.config | {"says": lines}
        await super().start(replace(action, spec=replace(action.spec, config=config)))

    async def wait(self, run: Run) -> Outcome:
        outcome, spec = await super().wait(run), self.runs[run].spec
        if not spec.code:
            return outcome
        try:
            returned = cloudpickle.loads(base64.b64decode(spec.code.pickle))(spec.config)
        except LookupError as error:
            words = f"{type(error).__name__}: {error}"
            reason = Reason(code="exception", message=words, detail=traceback.format_exc())
            return Outcome(ending=Ending.FAILED, cause=Cause.USER, reason=reason)
        return replace(outcome, result={"output_dir": None, "metrics": returned})


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr("served.ScriptedRunner", _Runner)
    with scheduler_at(tmp_path) as served:
        vars(served.service.validator).update(vars(SpecValidator([], [], allow_shipped_code=True)))
        monkeypatch.setenv("SCHEDULER_URL", served.url)
        yield served


def test_the_examples_print_what_the_page_says(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of the page, as one notebook."""
    names: dict[str, Any] = {"__name__": "__main__"}
    examples = [(found[1], found[2] or "") for found in _EXAMPLE.finditer(PAGE.read_text())]
    assert len(examples) > 8
    for code, expected in examples:
        exec(compile(code, str(PAGE), "exec"), names)
        said = capsys.readouterr().out
        assert doctest.OutputChecker().check_output(expected, said, doctest.ELLIPSIS), (
            f"{code}\nprinted:\n{said}\nthe page says:\n{expected}"
        )


def test_the_example_of_the_readme_runs(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """The first thing that a stranger tries."""
    examples = [found[1] for found in _EXAMPLE.finditer((ROOT / "README.md").read_text())]
    assert len(examples) == 1
    exec(compile(examples[0], "README.md", "exec"), {"__name__": "__main__"})
    assert "loss" in capsys.readouterr().out
