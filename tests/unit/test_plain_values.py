"""The border: whatever a loop hands over becomes JSON that everybody takes, within bounds, and nothing raises on the way."""

from __future__ import annotations

import collections
import dataclasses
import decimal
import enum
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from scheduler.core.finite import moment
from scheduler.core.model import JOB, Cause, Ending, Outcome, Reason
from scheduler.core.plain_values import (
    METRICS,
    MOST_NOTES,
    REASON_BYTES,
    Bounds,
    plain,
    plain_dict,
    plain_error,
    plain_outcome,
    plain_text,
)
from scheduler.testing.builders import a_job

DUNDERS = """getattribute repr str len iter bool eq hash int float index dir format sizeof reduce reduce_ex getitem
contains fspath bytes complex length_hint next call enter instancecheck"""


class Unpleasant(BaseException):
    """No `except Exception` catches it."""


def raising(*_: Any, **__: Any) -> Any:
    raise Unpleasant("no value of a loop may end the process that looks at it")


def hostile(*bases: type) -> Any:
    """An object of which every method raises."""
    kind = type("Hostile", bases, {f"__{name}__": raising for name in DUNDERS.split()})
    return object.__new__(kind) if not bases else bases[0].__new__(kind)


class Endless(collections.abc.Mapping[str, Any]):
    """Has more entries for whoever asks for them."""

    def __getitem__(self, key: str) -> Any:
        return self

    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            yield f"key {(number := number + 1)}"

    def __len__(self) -> int:
        return 1


class Colour(enum.Enum):
    RED = object()


@dataclasses.dataclass
class Point:
    x: Any = 1
    y: Any = b"raw"


holds_itself: list[Any] = []
holds_itself.append({"deep": (holds_itself,)})
ODD = [
    hostile(),
    hostile(dict),
    hostile(list),
    hostile(str),
    hostile(int),
    hostile(float),
    hostile(BaseException),
    Endless(),
    Colour.RED,
    Point(),
    SimpleNamespace(x=1),
    holds_itself,
    numpy.float32(0.5),
    numpy.array(["a", None], dtype=object),
    numpy.zeros((3, 0)),
    torch.tensor(0.5, requires_grad=True),
    torch.zeros(2, dtype=torch.bfloat16),
    torch.empty(3, device="meta"),
    decimal.Decimal("1e999999"),
    10**400,
    -(2**63) - 1,
    float("nan"),
    -0.0,
    "\ud83d half",
    "NUL \x00 and \u202e turn",
    b"\xff\x00",
    {("a", 1): 2, None: 3, 1.5: 4, "\udce9": 5, "\x00": 6},
    {1: "a", "1": "b", False: "c"},
    object,
    raising,
    iter([1]),
]


@dataclasses.dataclass(frozen=True)
class Odd:
    """Stands for `ODD[number]` until the test begins: Hypothesis itself does not survive to look at some of them."""

    number: int


def with_odd_ones(value: Any) -> Any:
    match value:
        case Odd():
            return ODD[value.number]
        case list() | tuple():
            return type(value)(map(with_odd_ones, value))
        case dict():
            return {key: with_odd_ones(one) for key, one in value.items()}
        case Point():
            return Point(with_odd_ones(value.x), with_odd_ones(value.y))
    return value


anything = st.recursive(
    st.one_of(
        st.builds(Odd, st.integers(0, len(ODD) - 1)),
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters(codec=None, categories=None)),  # surrogates, too
        st.binary(),
        st.complex_numbers(),
        st.decimals(),
        st.fractions(),
        st.datetimes(),
        st.timedeltas(),
        st.uuids(),
    ),
    lambda inner: st.one_of(
        st.lists(inner),
        st.tuples(inner, inner),
        st.dictionaries(
            st.one_of(st.text(st.characters(codec=None, categories=None)), st.integers(), st.none()), inner
        ),
        st.builds(Point, inner, inner),
    ),
    max_leaves=30,
)


def is_strict_json(value: Any, bounds: Bounds) -> str:
    """*value* as strict parsers read it.  PostgreSQL's `jsonb` takes the same, less NUL and half characters."""
    text = json.dumps(value, allow_nan=False)
    assert len(text) <= bounds.num_bytes + 400, "bounded"
    assert "\\u0000" not in text
    for letter in json.dumps(value, ensure_ascii=False):
        assert not "\ud800" <= letter <= "\udfff"
    read: Any = from_json(text)
    assert read == json.loads(text) == value, "and it comes back as it went"
    for number in numbers_of(value):
        assert isinstance(number, float) or -(2**63) <= number < 2**63
    return text


def numbers_of(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from numbers_of(one)
    elif isinstance(value, int | float):
        yield value


@settings(max_examples=150)
@given(anything, st.sampled_from([Bounds(), METRICS, Bounds(num_bytes=200, items=3, depth=2)]))
def test_anything_that_python_can_make_becomes_plain_json(value: Any, bounds: Bounds) -> None:
    """B1, B2: what is not is a run that never ends, or a list that answers nobody."""
    made, notes = plain(with_odd_ones(value), bounds)
    is_strict_json(made, bounds)
    assert len(notes) <= MOST_NOTES + 1
    is_strict_json(list(notes), Bounds(num_bytes=8_000))
    roomy = Bounds(2 * bounds.num_bytes + 1_000, bounds.items, bounds.depth + 1)
    assert plain(made, roomy).value == made, "what is plain stays as it is"


@given(st.from_type(object))
@settings(max_examples=50)
def test_so_does_whatever_type_there_is(value: Any) -> None:
    is_strict_json(plain(value).value, Bounds())


@pytest.mark.parametrize("number", range(len(ODD)))
def test_each_odd_value_alone_and_within_others(number: int) -> None:
    """By number: pytest itself does not survive to look at some of them."""
    value = ODD[number]
    for around in (value, [value, 1], {"it": value, "next": 1}):
        is_strict_json(plain(around).value, Bounds())
    assert plain([value, 1]).value[1] == 1, "the neighbour of an odd value is kept"


def test_plain_values_stay_as_they_are() -> None:
    value = {"loss": 0.5, "steps": 3, "names": ["a", "é 😀"], "nested": {"x": None, "is": True}, "-0": -0.0}
    assert plain(value) == (value, ())
    assert math.copysign(1, plain(-0.0).value) == -1


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (numpy.float32(0.5), 0.5),
        (numpy.int64(3), 3),
        (numpy.bool_(True), True),
        (numpy.eye(2), [[1.0, 0.0], [0.0, 1.0]]),
        (torch.tensor(0.25), 0.25),
        (torch.arange(3), [0, 1, 2]),
        (numpy.zeros((50, 50)), "ndarray of shape [50, 50], float64"),
        (torch.zeros(1000), "Tensor of shape [1000], torch.float32"),
        (Path("/data/x"), "/data/x"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (collections.namedtuple("Output", "loss steps")(0.5, 3), {"loss": 0.5, "steps": 3}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (enum.IntEnum("Size", {"BIG": 7})["BIG"], 7),
        (Point(1, 2), {"x": 1, "y": 2}),
        (2**64, float(2**64)),
        (float("inf"), None),
        ({1: 0.5}, {"1": 0.5}),
        ({1: "a", "1": "b"}, {"1": "a", "1 (2)": "b"}),
        ("caf\udce9", "caf\\udce9"),
        ("a\x00b", "a\\x00b"),
    ],
)
def test_what_numbers_and_their_like_become(value: Any, kept: Any) -> None:
    """B1: a training is not thrown away because its accuracy is a numpy number."""
    assert plain(value).value == kept


def test_what_was_cut_or_changed_is_said_and_where() -> None:
    value = {
        "acc": float("nan"),
        "raw": b"\x00",
        "deep": {"list": list(range(5000))},
        7: 1,
        "text": "x" * 100_000,
    }
    made, notes = plain(value)
    assert len(made["deep"]["list"]) == 1000
    told = " ".join(notes)
    for words in ("`acc` is nan", "`raw` is of type bytes", "`deep.list` is long: only its first 1,000 items", "the key 7",
                  "`text` is long, and was cut"):  # fmt: skip
        assert words in told, notes


class Counted(list[float]):
    """Its own way of being walked along is not taken."""

    def __iter__(self) -> Iterator[float]:
        pytest.fail("the list's own way is the one that cannot be made to lie")


class Asked(collections.abc.Mapping[str, Any]):
    def __init__(self) -> None:
        self.asked = 0

    def __len__(self) -> int:
        return 10**9

    def __iter__(self) -> Iterator[str]:
        for number in range(10**9):
            yield str(number)

    def __getitem__(self, key: str) -> Any:
        self.asked += 1
        return "x" * 40_000


def test_no_more_is_asked_for_than_is_kept() -> None:
    """A result of 40 MB made the journal grow by 147, and an actor stand still for a minute."""
    many = Asked()
    made, notes = plain({"weights": many, "list": Counted([0.5] * 1_000_000)})
    assert len(json.dumps(made)) <= 64_400
    assert many.asked <= 10
    assert any("`weights` is long" in note or "`weights." in note for note in notes)


def test_what_is_no_mapping_stands_under_a_name() -> None:
    assert plain_dict(0.25) == ({"returned": 0.25}, ())
    assert plain_dict(None) == ({}, ())
    assert plain_dict({"a": 1}) == ({"a": 1}, ())


class NeedsTwo(Exception):
    def __init__(self, code: int, path: str) -> None:
        super().__init__(f"error {code} in {path}")


class BadText(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class Disguised(Exception):
    __module__ = 7  # type: ignore[assignment]
    args = property(raising)  # type: ignore[assignment]
    __cause__ = property(raising)  # type: ignore[assignment]
    __traceback__ = property(raising)  # type: ignore[assignment]
    __str__ = raising


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001
        return caught


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("unknown label \ud83d"), "unknown label \\ud83d"),
        (NeedsTwo(7, "/data/shard-3"), "error 7 in /data/shard-3"),
        (BadText("missing"), "its text cannot be had; its arguments: ('missing',)"),
        (Disguised("a", "b"), "its text cannot be had"),
        (SystemExit("no GPU found"), "no GPU found"),
        (ValueError("x" * 5_000_000 + " the end"), " the end"),
    ],
)
def test_what_can_be_had_of_an_error_is_kept(error: BaseException, words: str) -> None:
    """B1: an error that cannot be told must not become a job that is completed, or runs for ever."""
    told = plain_error(raised(error))
    assert words in told["message"]
    assert told["type"] == type(error).__name__
    assert told["traceback"]
    assert len(is_strict_json(told, Bounds(num_bytes=REASON_BYTES))) <= REASON_BYTES
    if type(error) is not Disguised:
        assert "test_plain_values.py" in told["traceback"]
        assert told["module"] == type(error).__module__


@given(st.text(st.characters(codec=None, categories=None)), st.integers(100, 500))
def test_a_text_keeps_within_its_bytes(text: str, num_bytes: int) -> None:
    made = plain_text(text * 20, num_bytes)
    is_strict_json(made, Bounds(num_bytes=num_bytes))
    assert len(json.dumps(made)) <= num_bytes


@pytest.mark.parametrize("seconds", [None, "soon", True, -1, 1e30, 10**400, math.nan, []])
def test_what_is_no_moment_is_none(seconds: Any) -> None:
    """A loop that writes its own times once made a healthy run look dead: asking it raised each time."""
    assert moment(seconds) is None


def test_a_moment() -> None:
    assert moment(1_767_312_000) == datetime(2026, 1, 2, tzinfo=UTC)


@settings(max_examples=100)
@given(anything, anything)
def test_any_outcome_can_be_journalled(value: Any, other: Any) -> None:
    """Also one that an older release, or a hand, left on disk."""
    value, other = with_odd_ones(value), with_odd_ones(other)
    outcome = plain_outcome(
        Outcome(
            ending=Ending.FAILED,
            cause=Cause.USER,
            reason=Reason(code="x", message=plain_text(value), detail=plain_text(other)),
            result={"metrics": value},
            progress={"it": other},
            evidence={"logs": {"0": value}},
        )
    )
    job = a_job(result=outcome.result, progress=outcome.progress, reason=outcome.reason)
    assert JOB.validate_json(JOB.dump_json(job)) == job
