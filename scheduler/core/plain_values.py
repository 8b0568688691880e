"""The border: whatever a run hands over becomes plain JSON, bounded, before anybody keeps, sends or shows it.

A train loop is other people's code: what it returns, reports and raises may be any Python object, also one whose every
method raises, one that holds itself, or one of gigabytes.  Nothing behind this module sees such a value.  What is made
here is taken by strict JSON parsers, by PostgreSQL's `jsonb` and by browsers: text keys, whole characters without NUL,
finite numbers of at most 64 bits, no cycle, at most so many bytes.  What is not kept as it was is said, once.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import date
from itertools import islice
from typing import Any, NamedTuple, TypeVar, cast

from scheduler.core.model import Job, JobEvent, Json, Outcome, Reason

T = TypeVar("T")

ARRAY_ITEMS = 100
"""An array of so many numbers is kept as a list; of a larger one its kind and shape are."""
KEY_BYTES = 400
MOST_NOTES = 10
REASON_BYTES = 64_000
"""Of an error's text and traceback together, and of each text in a reason."""


class Bounds(NamedTuple):
    """How much of a value is kept."""

    num_bytes: int = 64_000
    """As JSON that is ASCII only, as `json.dumps` writes it."""
    items: int = 1_000
    """Entries of one mapping or list."""
    depth: int = 16
    """Mappings and lists within each other."""


RESULT = Bounds()
"""For what a loop returns."""
RESULT_DOCUMENT = Bounds(num_bytes=72_000)
"""For a result with what is said about it."""
METRICS = Bounds(num_bytes=16_000, items=256, depth=4)
"""For what a loop reports with one step."""
EVIDENCE = Bounds(num_bytes=512_000, items=5_000)
"""For what was seen of a run: its budget is made where it is gathered."""


class Plain(NamedTuple):
    value: Any
    """JSON: None, bool, int, float, str, and lists and dicts of them."""
    notes: tuple[str, ...] = ()
    """Sentences: what was cut, renamed or kept in another form."""


def plain(value: object, bounds: Bounds = RESULT) -> Plain:
    """*value* as JSON within *bounds*.  Never raises, and calls nothing that could change *value*."""
    border = _Border(bounds)
    made = border.take(value, "", 0)
    return Plain(made, border.told())


def plain_dict(value: object, bounds: Bounds = RESULT) -> tuple[dict[str, Any], tuple[str, ...]]:
    """As `plain`, for what has to be a mapping: nothing for None, and any other value under the name `returned`."""
    made, notes = plain(value, bounds)
    if made is None:
        return {}, notes
    return made if type(made) is _MAPPING else {"returned": made}, notes


def plain_text(text: object, num_bytes: int = REASON_BYTES) -> str:
    """*text* as characters that everybody can store; of a long one the beginning and the end."""
    whole = _as_text(text)
    if len(whole) <= num_bytes and _cost(made := _storable(whole)) <= num_bytes:
        return made
    # A character takes up to twelve bytes; shorten until it fits.
    room = num_bytes
    while True:
        made = _storable(_ends_of(whole, max(0, room - 80)))
        if _cost(made) <= num_bytes or room <= 80:
            return made
        room = room * 3 // 4


def plain_error(error: BaseException) -> dict[str, Any]:
    """What can be had of an exception: `type`, `module`, `message`, `traceback`, within `REASON_BYTES`."""
    kind = type(error)
    return {
        "type": plain_text(_guarded(lambda: kind.__name__, "Exception"), KEY_BYTES),
        "module": plain_text(_guarded(lambda: kind.__module__, ""), KEY_BYTES),
        "message": plain_text(_message(error), REASON_BYTES // 4),
        "traceback": plain_text(_traceback(error), REASON_BYTES // 2),
    }


def plain_outcome(outcome: Outcome) -> Outcome:
    """*outcome* as it may be journalled, sent and shown: also one that an older release made."""
    return replace(
        outcome,
        reason=_plain_reason(outcome.reason),
        result=_plain_json(outcome.result, RESULT_DOCUMENT),
        progress=_plain_json(outcome.progress, METRICS),
        signature=outcome.signature and plain_text(outcome.signature, 1_000),
        evidence=_plain_json(outcome.evidence, EVIDENCE),
    )


def without_words(job: Job, event: JobEvent, why: str) -> tuple[Job, JobEvent]:
    """The same step without anything that a run said: that it was made counts for more than what was said."""
    message = f"{plain_text(job.reason.message, 2_000)}; what was said with it could not be kept: {plain_text(why, 500)}"
    reason = Reason(code=plain_text(job.reason.code, 100), message=message)
    attempt = event.attempt and replace(event.attempt, evidence=None, resumed=None, reason=reason)
    stop = job.stop and replace(job.stop, evidence=None)
    return (
        replace(job, progress=None, result=None, resumed=None, reason=reason, stop=stop, last_failure=None),
        replace(event, reason=reason, attempt=attempt),
    )


def _plain_reason(reason: Reason) -> Reason:
    return Reason(
        code=plain_text(reason.code, 100),
        message=plain_text(reason.message, REASON_BYTES // 4),
        detail=None if reason.detail is None else plain_text(reason.detail, REASON_BYTES),
    )


def _plain_json(value: Json | None, bounds: Bounds) -> Json | None:
    return None if value is None else plain_dict(value, bounds)[0]


class _Border:
    """One value on its way over.  `left` is what may still be written; keys and marks of JSON count, too."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds, self._left = bounds, bounds.num_bytes
        self._notes: dict[str, None] = {}
        self._num_notes = 0
        self._around: list[int] = []
        """The ids of the containers that are being taken: one that comes again within itself is a cycle."""

    def told(self) -> tuple[str, ...]:
        more = self._num_notes - len(self._notes)
        return (*self._notes, *([f"and {more} more of such notes"] if more else []))

    def take(self, value: Any, path: str, depth: int) -> Any:
        kind: Any = cast(Any, type(value))  # not `value.__class__`, which an object may make up
        if value is None or kind is bool:
            return self._paid(value, 5)
        if issubclass(kind, str):
            return self._text(_as_text(value), path)
        if issubclass(kind, int) and not issubclass(kind, enum.Enum):
            return self._whole_number(int.__int__(value), path)
        if issubclass(kind, float):
            return self._number(float.__float__(value), path)
        if depth > self._bounds.depth:
            return self._instead(path, f"is nested more than {self._bounds.depth} levels deep", "(too deep)")
        made = _guarded(lambda: self._container(value, kind, path, depth), _FAILED)
        return self._described(value, path) if made is _FAILED else made

    def _container(self, value: Any, kind: Any, path: str, depth: int) -> Any:
        """Whatever runs foreign code: it may raise, and then the value is described."""
        if (entries := _entries(value, kind)) is not None:
            return self._within(value, path, lambda: self._mapping(entries, path, depth))
        if (items := _items(value, kind)) is not None:
            return self._within(value, path, lambda: self._sequence(items, path, depth))
        if issubclass(kind, date):
            return self._text(value.isoformat(), path)
        if hasattr(kind, "__fspath__"):
            return self._text(_as_text(value.__fspath__()), path)
        held = value.value if issubclass(kind, enum.Enum) else _array(value, kind)
        return _FAILED if held is _FAILED else self.take(held, path, depth + 1)

    def _within(self, value: object, path: str, take: Callable[[], Any]) -> Any:
        if id(value) in self._around:
            return self._instead(path, "holds itself", "(holds itself)")
        self._around.append(id(value))
        try:
            return take()
        finally:
            self._around.pop()

    def _mapping(self, entries: Iterable[tuple[object, object]], path: str, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        self._left -= 2
        for number, (key, value) in enumerate(islice(entries, self._bounds.items + 1)):
            if number == self._bounds.items or self._left < 32:
                self._cut(path, number, "entries")
                break
            name = self._key(key, path, made)
            self._left -= _cost(name) + 4
            made[name] = self.take(value, f"{path}.{name}" if path else name, depth + 1)
        return made

    def _sequence(self, items: Iterable[object], path: str, depth: int) -> list[Any]:
        made: list[Any] = []
        self._left -= 2
        for number, value in enumerate(islice(items, self._bounds.items + 1)):
            if number == self._bounds.items or self._left < 32:
                self._cut(path, number, "items")
                break
            self._left -= 2
            made.append(self.take(value, f"{path}.{number}" if path else str(number), depth + 1))
        return made

    def _key(self, key: object, path: str, there: Mapping[str, Any]) -> str:
        kind = type(key)
        text = _as_text(key) if issubclass(kind, str) else _word(key)
        name = plain_text(text, min(KEY_BYTES, max(16, self._left)))
        where = f"{path}.{name}" if path else name
        if not issubclass(kind, str):
            self._note(f"the key {where}, of type {_name(kind)}, became text")
        elif name != text:
            self._note(f"the key {where} was shortened, or held what is no character")
        number = 2
        while name in there:
            name, number = f"{name[:100]} ({number})", number + 1
        return name

    def _whole_number(self, number: int, path: str) -> Any:
        if -(2**63) <= number < 2**63:
            return self._paid(number, 20)
        near = _guarded(lambda: float(number), math.inf)
        if not math.isfinite(near):
            return self._instead(
                path, "is a number that no JSON reader holds", f"(a number of {number.bit_length()} bits)"
            )
        self._note(f"{_named(path)} is a whole number beyond 64 bits, and was rounded")
        return self._paid(near, 24)

    def _number(self, number: float, path: str) -> float | None:
        if math.isfinite(number):
            return self._paid(number, 24)
        self._note(f"{_named(path)} is {number}, which JSON has no number for, and became null")
        return self._paid(None, 5)

    def _text(self, text: str, path: str) -> str:
        room = max(16, self._left - 2)
        made = plain_text(text, room)
        if made != text:
            is_cut = len(text) > room or _cost(text) > room
            self._note(f"{_named(path)} {'is long, and was cut' if is_cut else 'holds what is no character'}")
        return self._paid(made, _cost(made))

    def _described(self, value: object, path: str) -> str:
        """Its short text: nobody needs an object that only its own process can hold."""
        self._note(f"{_named(path)} is of type {_name(type(value))}, and only its text was kept")
        text = plain_text(_word(value), min(300, max(16, self._left - 2)))
        return self._paid(text, _cost(text))

    def _instead(self, path: str, why: str, text: str) -> str:
        self._note(f"{_named(path)} {why}, and was left out")
        return self._paid(text, _cost(text))

    def _cut(self, path: str, kept: int, what: str) -> None:
        self._note(f"{_named(path)} is long: only its first {kept:,} {what} were kept")

    def _note(self, words: str) -> None:
        self._num_notes += words not in self._notes
        if len(self._notes) < MOST_NOTES:
            self._notes[plain_text(words, 400)] = None

    def _paid(self, value: T, num_bytes: int) -> T:
        self._left -= num_bytes
        return value


_FAILED: Any = object()
_MAPPING: Any = dict
_TUPLE: Any = tuple
_ROWS: tuple[Any, ...] = (list, tuple, set, frozenset)
"""Asked by their own methods, whatever a subclass puts over them."""
_OF_ERRORS: Mapping[str, Any] = vars(BaseException)
"""What every exception has, whatever its class puts over it."""


def _guarded(ask: Callable[[], T], otherwise: T) -> T:
    """What *ask* returns, whose answer comes from foreign code: it may raise anything, even what ends a process."""
    try:
        return ask()
    except BaseException:  # noqa: BLE001  a value that raises is described, not followed
        return otherwise


def _as_text(value: Any) -> str:
    """A plain `str`, also of a subclass whose methods raise."""
    return str.__str__(value) if issubclass(type(value), str) else _word(value)


def _word(value: Any) -> str:
    if value is None or type(value) in (bool, float):
        return json.dumps(value)
    if issubclass(type(value), int):
        number = int.__int__(value)
        return str(number) if number.bit_length() < 1000 else f"(a number of {number.bit_length()} bits)"
    if issubclass(type(value), bytes | bytearray | memoryview):
        size = len(value)
        return f"{bytes(value[:20])!r}, {size:,} bytes" if size > 20 else repr(bytes(value))
    text = _guarded(lambda: repr(value), None)
    if type(text) is str:
        return text
    return f"<{_name(type(value))} that cannot be shown>"


def _name(kind: Any) -> str:
    name = _guarded(lambda: kind.__name__, "object")
    return plain_text(name, 100) if type(name) is str else "object"


def _named(path: str) -> str:
    return f"`{_ends_of(path, KEY_BYTES)}`" if path else "the value"


def _entries(value: Any, kind: Any) -> Iterable[tuple[object, object]] | None:
    """Of whatever has named parts."""
    if issubclass(kind, dict):
        return _MAPPING.items(value)
    if issubclass(kind, _TUPLE) and hasattr(kind, "_fields"):
        names: Any = kind._fields
        return [(name, one) for name, one in zip(names, _TUPLE.__iter__(value), strict=False)]
    if dataclasses.is_dataclass(kind):
        return [(one.name, getattr(value, one.name)) for one in dataclasses.fields(kind)]
    if issubclass(kind, Mapping):
        return islice(value.items(), 100_000)
    return None


def _items(value: Any, kind: Any) -> Iterable[object] | None:
    """Of whatever is a row of things."""
    for base in _ROWS:
        if issubclass(kind, base):
            return base.__iter__(value)
    return None


def _array(value: Any, kind: Any) -> Any:
    """What an array of numpy, torch, jax and their like holds, as Python's numbers; of a large one its shape."""
    if not (hasattr(kind, "tolist") and hasattr(kind, "shape") and hasattr(kind, "dtype")):
        return _FAILED
    shape = tuple(int(size) for size in value.shape)
    if math.prod(shape) <= ARRAY_ITEMS:
        return _only_plain(value.tolist())
    return f"{_name(kind)} of shape {list(shape)}, {value.dtype}"


def _only_plain(value: Any) -> Any:
    """Against an array whose `tolist` returns arrays for ever."""
    return value if type(value) in (list, int, float, bool, str, type(None)) else _word(value)


def _message(error: BaseException) -> str:
    text = _guarded(lambda: str(error), None)
    if type(text) is str:
        return text
    said = _guarded(lambda: _OF_ERRORS["args"].__get__(error), ())
    return f"(its text cannot be had; its arguments: {_word(said)})"


def _traceback(error: BaseException) -> str:
    made = _guarded(lambda: "".join(traceback.format_exception(error)), None)
    if type(made) is str:
        return made
    frames = _guarded(lambda: traceback.format_tb(_OF_ERRORS["__traceback__"].__get__(error)), [])
    return "".join(["Traceback (most recent call last):\n", *frames, _name(type(error))])


def _ends_of(text: str, characters: int) -> str:
    """Its beginning and its end, which of an error is what tells most."""
    if len(text) <= characters:
        return text
    head = characters // 3
    tail = characters - head
    left_out = f" … {len(text) - characters:,} characters left out … "
    return text[:head] + left_out + (text[-tail:] if tail else "")


def _storable(text: str) -> str:
    """Halves of surrogate pairs and NUL are written as their escapes: no database takes them."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def _cost(text: str) -> int:
    return len(json.dumps(text))
