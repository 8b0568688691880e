"""Specs in YAML or JSON files: read so that every complaint names its line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from scheduler.client.spec_text import refused, spec_text
from scheduler.client.spec_yaml import check_nodes, lines_of, nodes_of_json, yaml_value
from scheduler.client.specs import SPEC_FIELDS, to_spec
from scheduler.core.model import JobSpec
from scheduler.errors import InvalidSpec, Problem


@dataclass(frozen=True, slots=True)
class SpecFile:
    """What a file says, and on which line it says it."""

    source: str
    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    lines: dict[str, int] = field(default_factory=dict[str, int])

    def with_values(self, values: Mapping[str, Any]) -> SpecFile:
        """With *values* at dotted paths, as `resources.num_ranks`.

        A path that does not begin with a field of the spec is one of `config`.
        """
        fields, lines = _apart(self.fields), dict(self.lines)
        for path, value in values.items():
            full = path if path.split(".")[0] in SPEC_FIELDS else f"config.{path}"
            _put(fields, full.split("."), value)
            lines.pop(full, None)
        return SpecFile(self.source, fields, lines)

    def spec(self) -> JobSpec:
        """Raises InvalidSpec, each problem with its line.

        A job runs elsewhere: a value of `config` that names a file or folder seen from here becomes absolute.
        """
        fields, config = dict(self.fields), self.fields.get("config")
        if isinstance(config, dict):
            given = cast("dict[str, Any]", config)
            fields["config"] = {name: _seen_from_here(value) for name, value in given.items()}
        try:
            return to_spec(fields)
        except InvalidSpec as error:
            raise self.placed(error) from None

    def placed(self, error: InvalidSpec) -> InvalidSpec:
        """*error* with the lines its fields are on; also for what the server found."""
        placed = [Problem(one.field, one.message + self._where(one.field)) for one in error.problems]
        return InvalidSpec.of(*placed) if any(map(self.lines.get, (one.field for one in placed))) else error

    def _where(self, path: str) -> str:
        return f" ({self.source}, line {self.lines[path]})" if path in self.lines else ""


def load_spec(path: str | Path) -> JobSpec:
    """The spec in a YAML or JSON file; `-` reads standard input.

    Raises InvalidSpec: what is wrong, in which field, on which line.
    """
    return read_spec_file(path).spec()


def read_spec_file(path: str | Path) -> SpecFile:
    """As `load_spec`, before the fields are looked at."""
    source = "standard input" if str(path) == "-" else str(path)
    text = spec_text(path, source)
    is_json = source.lower().endswith(".json") or _is_json(text)
    return _from_json(text, source) if is_json else _from_yaml(text, source)


def parse_value(text: str, source: str) -> Any:
    """One value as a YAML file would read it: `1e-4`, `true`, `[1, 2]`, plain text."""
    quote = "; text can be put in quotes within quotes, as --set 'name=\"...\"'"
    try:
        value, node = yaml_value(text, source)
    except InvalidSpec as error:
        raise InvalidSpec.of(*(Problem(one.field, one.message + quote) for one in error.problems)) from None
    ends_at = 0 if node is None or (value is None and not node.value) else node.end_mark.index
    if dropped := text[ends_at:].strip():
        raise refused(
            source, f"{dropped[:60]} would be dropped, since YAML counts it as no part of the value{quote}"
        )
    return value


def _from_json(text: str, source: str) -> SpecFile:
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"{source}, line {error.lineno}, column {error.colno}"
        raise refused(where, f"is not JSON: {error.msg}") from None
    except RecursionError:
        raise refused(source, "is nested too deep; flatten it") from None
    except ValueError as error:
        check_nodes(nodes_of_json(text, source), source)  # of a key that is given twice, YAML knows the line
        raise refused(source, str(error)) from None
    return SpecFile(source, _mapping(value, source), dict(lines_of(nodes_of_json(text, source))))


def _from_yaml(text: str, source: str) -> SpecFile:
    value, node = yaml_value(text, source)
    return SpecFile(source, _mapping(value, source), dict(lines_of(node)))


def _is_json(text: str) -> bool:
    """Whether it is, whatever it is called.  As YAML the same would be read otherwise: tabs, and line ends in text."""
    try:
        return text.lstrip()[:1] == "{" and isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _mapping(value: Any, source: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    what = "is empty" if value is None else f"holds a {type(value).__name__}, not fields"
    raise refused(source, f"{what}; a spec starts with a line such as `loop: sft`")


def _seen_from_here(value: Any) -> Any:
    if not isinstance(value, str) or "/" not in value or value.startswith("/"):
        return value
    try:
        path = Path(value).expanduser()
        return str(path.absolute()) if path.exists() else value
    except (OSError, ValueError, RuntimeError):  # too long, with a NUL, in nobody's home: no path of ours
        return value


def _apart(value: Any) -> Any:
    """A copy in which nothing stands in two places: what an alias repeats may be changed in one of them."""
    if isinstance(value, dict):
        return {key: _apart(inner) for key, inner in cast("dict[Any, Any]", value).items()}
    return [_apart(inner) for inner in cast("list[Any]", value)] if isinstance(value, list) else value


def _put(fields: dict[str, Any], path: list[str], value: Any) -> None:
    """Raises InvalidSpec where *path* leads through a value that has no parts: it would be lost."""
    here: Any = fields
    for depth, part in enumerate(path):
        key = _part_of(here, part, path, depth)
        if depth == len(path) - 1:
            here[key] = value
        elif isinstance(here, dict) and cast("dict[Any, Any]", here).get(key) is None:
            here[key] = {}
        here = cast("Any", here)[key]


def _part_of(here: Any, part: str, path: list[str], depth: int) -> Any:
    items = cast("list[Any]", here) if isinstance(here, list) else None
    if items is not None and part.isdecimal() and int(part) < len(items):
        return int(part)
    if isinstance(here, dict) and part:
        return part
    above = ".".join(path[:depth]) or "the spec"
    kind = f"a {type(cast('object', here)).__name__}" if items is None else f"a list of {len(items)}"
    raise refused(".".join(path), f"cannot be set: {above} is {kind}, which has no part {part!r}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"{twice} is given twice; keep one of the two")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number that JSON knows; give a finite one")
