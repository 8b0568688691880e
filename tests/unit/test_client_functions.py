"""Train functions as jobs: named where they can be imported, sent themselves where they cannot."""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from served import LOOP, Served, scheduler_at

from scheduler.client import Client
from scheduler.client.shipping import fields_of, running_python
from scheduler.client.specs import to_spec, to_wire
from scheduler.core.model import JOB, MAX_CODE_CHARS, SPEC, JobSpec, ShippedCode
from scheduler.engine.spec_validation import SpecValidator
from scheduler.errors import InvalidSpec, NotReady
from scheduler.testing.builders import a_job, a_node

ROOT = Path(__file__).resolve().parents[2]


def importable(config: dict[str, Any]) -> None:
    """At the top of a module."""


class Loops:
    @staticmethod
    def train(config: dict[str, Any]) -> None:
        """Not at the top of a module."""


def a_closure(factor: int) -> Callable[[dict[str, Any]], int]:
    def train(config: dict[str, Any]) -> int:
        return factor * config["by"]

    return train


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with scheduler_at(tmp_path_factory.mktemp("served")) as served:
        yield served


def check(spec: JobSpec, *, allowed: bool = True) -> None:
    SpecValidator([], [], allow_shipped_code=allowed).check(spec, [a_node()])


def a_shipped_spec(**changes: Any) -> JobSpec:
    code = ShippedCode(**{"pickle": "gAU=", "python": running_python(), **changes})
    return JobSpec(loop="shipped:train", code=code)


def test_an_importable_function_goes_by_its_name() -> None:
    """Then the cluster runs its own copy, and nothing has to be allowed for it."""
    assert fields_of(importable) == {"loop": f"{__name__}:importable", "name": "importable"}


@pytest.mark.parametrize("function", [a_closure(7), lambda config: 7 * config["by"]])
def test_a_function_that_cannot_be_imported_is_sent_itself(function: Any) -> None:
    """With what it captured, and as it is called on the cluster."""
    fields = fields_of(function)
    assert fields["loop"] == f"shipped:{fields['name']}"
    assert cloudpickle.loads(base64.b64decode(fields["code"].pickle))({"by": 6}) == 42


def test_a_function_within_a_class_is_sent_itself() -> None:
    """`module:Class.function` is no name that the cluster looks up."""
    assert fields_of(Loops.train)["code"] is not None


def test_a_function_of_a_script_is_sent_itself(tmp_path: Path) -> None:
    """`__main__` is another module on the cluster."""
    script = tmp_path / "script.py"
    script.write_text(
        "from scheduler.client.shipping import fields_of\ndef train(config): return config['a'] + LATER\nLATER = 2\n"
        "print(fields_of(train)['code'].pickle)\n"
    )
    done = subprocess.run(
        [sys.executable, script], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert pickle.loads(base64.b64decode(done.stdout))({"a": 1}) == 3


def test_without_cloudpickle_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(NotReady, match=r"pip install 'training-scheduler\[functions\]'"):
        fields_of(a_closure(7))
    assert fields_of(importable)


def test_what_a_function_captured_may_be_too_large_or_no_value() -> None:
    """A data set in a closure must not be copied into every line of the journal."""
    data, lock = b"x" * MAX_CODE_CHARS, __import__("threading").Lock()
    with pytest.raises(InvalidSpec, match="read data inside the function, by a path in `config`"):
        fields_of(lambda config: len(data))
    with pytest.raises(InvalidSpec, match=r"cannot be sent: TypeError.*lock"):
        fields_of(lambda config: lock.locked())


def test_a_scheduler_takes_no_code_unless_it_was_told_to(served: Served) -> None:
    """Whoever may submit could run anything: an operator has to want that."""
    with Client(served.url) as client:
        with pytest.raises(InvalidSpec, match="SCHEDULER_ALLOW_SHIPPED_CODE=true"):
            client.submit(a_closure(7))
        assert not client.plan(a_closure(7)).valid
        vars(served.service.validator).update(vars(SpecValidator([LOOP], [], allow_shipped_code=True)))
        job = client.submit(a_closure(7), name="seven", config={"seconds": 0})
        assert job.wait(10).name == "seven"


def test_answers_leave_the_code_out_and_say_so_when_it_is_sent_back(served: Served) -> None:
    """A page of such jobs would be megabytes; a copy without the function must not run something else."""
    vars(served.service.validator).update(vars(SpecValidator([LOOP], [], allow_shipped_code=True)))
    with Client(served.url) as client:
        job = client.submit(a_closure(7))
        assert job.last is not None
        assert job.last.spec.code == ShippedCode(pickle="", python=running_python())
        with pytest.raises(InvalidSpec, match="submit it again from where it is"):
            client.submit(job.last.spec)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (JobSpec(loop="shipped:train"), "code: the function is not there"),
        (a_shipped_spec(python="3.9"), f"made by Python 3.9 and the cluster runs {running_python()}"),
        (a_shipped_spec(pickle="<script>"), "code.pickle: is not base64"),
        (replace(a_shipped_spec(), loop="sft"), "loop: 'sft' comes with code of its own"),
    ],
)
def test_code_that_could_not_be_read_is_refused_at_the_door(spec: JobSpec, words: str) -> None:
    """Else it would fail on the cluster, after it had waited for its turn."""
    with pytest.raises(InvalidSpec) as caught:
        check(spec)
    assert words in str(caught.value)
    check(a_shipped_spec())


def test_the_name_alone_does_not_open_the_door() -> None:
    """`SCHEDULER_ALLOWED_LOOPS=*` is about modules, not about code that is sent."""
    with pytest.raises(InvalidSpec, match="takes no function that is sent along"):
        SpecValidator(["*"], []).check(a_shipped_spec(), [a_node()])
    assert SpecValidator([LOOP], [], allow_shipped_code=True).loops().allowed == [LOOP, "shipped:*"]


def test_a_job_without_code_is_written_as_before() -> None:
    """An older release refuses a field that it does not know, in a journal as over HTTP."""
    assert "code" not in json.loads(JOB.dump_json(a_job()))["spec"]
    assert "code" not in to_wire(JobSpec(loop="sft"))


def test_code_survives_the_wire_and_the_journal() -> None:
    spec = to_spec(fields_of(a_closure(7)))
    assert SPEC.validate_python(to_wire(spec)) == spec == SPEC.validate_json(SPEC.dump_json(spec))


def test_the_source_of_a_function_goes_with_it_and_leaves_no_trace_here() -> None:
    """D5: the cluster has not the file, and a traceback without lines says little."""

    def train(config: dict[str, Any]) -> None:
        raise LookupError("no such dataset")

    fields = fields_of(train)
    sent = cloudpickle.loads(base64.b64decode(fields["code"].pickle))
    line = sent.__code__.co_firstlineno + 1
    assert sent.__source__.splitlines()[line - 1].strip() == 'raise LookupError("no such dataset")'
    assert not vars(train)
