"""Specs in YAML or JSON files: read so that every complaint names its line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from scheduler.client.specs import SPEC_FIELDS, to_spec
from scheduler.core.model import JobSpec
from scheduler.errors import InvalidSpec, Problem

_CORE = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core types: `1e-4` is a number, and `no`, `on`, `12:30` and dates are text."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)",
        "-+.0123456789",
    ),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(_CORE + _tag, re.compile(rf"(?:{_pattern})\Z"), list(_first))


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
        fields, lines = deepcopy(self.fields), dict(self.lines)
        for path, value in values.items():
            full = path if path.split(".")[0] in SPEC_FIELDS else f"config.{path}"
            _put(fields, full.split("."), value)
            lines.pop(full, None)
        return SpecFile(self.source, fields, lines)

    def spec(self) -> JobSpec:
        """Raises InvalidSpec, each problem with its line.

        A job runs elsewhere: a value of `config` that names a file or folder seen from here becomes absolute.
        """
        config = self.fields.get("config")
        fields = (
            self.fields | {"config": _seen_from_here(config)} if isinstance(config, dict) else self.fields
        )
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


def _seen_from_here(config: dict[str, Any]) -> dict[str, Any]:
    paths = {name: Path(value) for name, value in config.items() if isinstance(value, str) and "/" in value}
    return config | {name: str(path.absolute()) for name, path in paths.items() if _exists(path)}


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a NUL: no path of ours
        return False


def load_spec(path: str | Path) -> JobSpec:
    """The spec in a YAML or JSON file; `-` reads standard input.

    Raises InvalidSpec: what is wrong, in which field, on which line.
    """
    return read_spec_file(path).spec()


def read_spec_file(path: str | Path) -> SpecFile:
    """As `load_spec`, before the fields are looked at."""
    source = "standard input" if str(path) == "-" else str(path)
    text = _text(path, source)
    return _from_json(text, source) if source.endswith(".json") else _from_yaml(text, source)


def parse_value(text: str, source: str) -> Any:
    """One value as a YAML file would read it: `1e-4`, `true`, `[1, 2]`, plain text."""
    return _yaml_value(text, source)[0]


def _text(path: str | Path, source: str) -> str:
    try:
        return sys.stdin.read() if str(path) == "-" else Path(path).expanduser().read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _refused(source, "is not there; give the path of a YAML or JSON file with a job spec") from None
    except UnicodeDecodeError as error:
        raise _refused(source, f"is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise _refused(source, f"cannot be read: {error.strerror or error}") from None


def _from_json(text: str, source: str) -> SpecFile:
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise _refused(
            f"{source}, line {error.lineno}, column {error.colno}", f"is not JSON: {error.msg}"
        ) from None
    except ValueError as error:
        raise _refused(source, str(error)) from None
    # JSON is YAML, but for tabs; they are no part of any key's place.
    return SpecFile(source, _mapping(value, source), dict(_lines(_compose(text.replace("\t", " "), source))))


def _from_yaml(text: str, source: str) -> SpecFile:
    value, node = _yaml_value(text, source)
    return SpecFile(source, _mapping(value, source), dict(_lines(node)))


def _yaml_value(text: str, source: str) -> tuple[Any, yaml.Node | None]:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        _check(node, source, ())
        return (None if node is None else loader.construct_document(node)), node
    except yaml.YAMLError as error:
        raise _not_yaml(error, source) from None
    finally:
        loader.dispose()


def _compose(text: str, source: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, _Loader)
    except yaml.YAMLError as error:
        raise _not_yaml(error, source) from None


def _check(node: yaml.Node | None, source: str, above: tuple[int, ...]) -> None:
    """What YAML permits and a spec must not: a key given twice, a value that contains itself."""
    if id(node) in above:
        raise _refused(_at(node, source), "contains itself; write the value out")
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                raise _refused(_at(key, source), f"{key.value} is given twice; keep one of the two")
            seen.add(str(key.value))
            _check(value, source, (*above, id(node)))
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check(item, source, (*above, id(node)))


def _lines(node: yaml.Node | None, path: str = "") -> Iterator[tuple[str, int]]:
    if path and node is not None:
        yield path, node.start_mark.line + 1
    prefix = f"{path}." if path else ""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _lines(value, f"{prefix}{key.value}")
            yield f"{prefix}{key.value}", key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(item, f"{prefix}{index}")


def _mapping(value: Any, source: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    what = "is empty" if value is None else f"holds a {type(value).__name__}, not fields"
    raise _refused(source, f"{what}; a spec starts with a line such as `loop: sft`")


def _put(fields: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        inner = fields.get(part)
        fields[part] = inner if isinstance(inner, dict) else {}
        fields = fields[part]
    fields[path[-1]] = value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is given twice; keep one of the two")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number that JSON knows; give a finite one")


def _not_yaml(error: yaml.YAMLError, source: str) -> InvalidSpec:
    mark = getattr(error, "problem_mark", None)
    where = f"{source}, line {mark.line + 1}, column {mark.column + 1}" if mark else source
    return _refused(where, f"is not YAML: {getattr(error, 'problem', None) or error}")


def _at(node: yaml.Node | None, source: str) -> str:
    return source if node is None else f"{source}, line {node.start_mark.line + 1}"


def _refused(where: str, what: str) -> InvalidSpec:
    return InvalidSpec.of(Problem(where, what))
