"""A form from a JSON schema, and a value from the form: whatever the schema gains, the form has."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One input.  `path` is where its value goes, as `resources.num_ranks`."""

    path: str
    kind: str
    """`text`, `integer`, `number`, `choice`, `lines` (a list), `pairs` (a mapping) or `json`."""
    description: str = ""
    required: bool = False
    default: str = ""
    choices: tuple[str, ...] = ()
    word: str | None = None
    """What stands for the whole list, as `all-linear`."""
    many: bool = False
    """Of pairs: a name may have several values, each in a line of its own."""

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def is_long(self) -> bool:
        return self.kind in ("lines", "pairs", "json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Fields that belong together; `path` is that of the object they make, empty for the outermost."""

    path: str
    description: str
    fields: tuple[Field, ...]


def groups(schema: Schema, prefix: str = "", without: Iterable[str] = ()) -> list[Group]:
    """The inputs for *schema*: its own first, then those of each object within it."""
    own: list[Field] = []
    parts: list[Group] = []
    required = schema.get("required", ())
    for name, described in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        if path in without:
            continue
        target = _target(described, schema)
        if "properties" in target:
            parts += groups({"$defs": schema.get("$defs", {}), **target}, f"{path}.")
        else:
            own.append(_field(path, {**target, **described}, name in required))
    first = Group(path=prefix.rstrip("."), description=schema.get("description", ""), fields=tuple(own))
    return [first, *parts]


def texts(fields: Iterable[Field], value: Mapping[str, Any]) -> dict[str, str]:
    """What stands in each input for *value*; a field that *value* does not have is left out."""
    found = ((field, _at(value, field.path.split("."))) for field in fields)
    return {field.path: _text(field, one) for field, one in found if one is not None}


def value_of(fields: Iterable[Field], given: Mapping[str, str]) -> dict[str, Any]:
    """The value that the inputs describe.  An empty input is the default, and left out.

    What is no number where one is wanted stays text: whoever validates the value has the words for it.
    """
    value: dict[str, Any] = {}
    for field in fields:
        text = given.get(field.path, "").strip()
        if text:
            _put(value, field.path.split("."), _parsed(field, text))
    return value


def _target(described: Schema, schema: Schema) -> Schema:
    reference = described.get("$ref", "").removeprefix("#/$defs/")
    return schema["$defs"][reference] if reference else described


def _field(path: str, described: Schema, required: bool) -> Field:
    allowed = [one for one in described.get("anyOf", [described]) if one.get("type") != "null"]
    main = next((one for one in allowed if one.get("type") == "array"), allowed[0])
    word = next((one["const"] for one in allowed if "const" in one), None)
    field = Field(
        path=path,
        kind=_kind(main),
        description=described.get("description", ""),
        required=required,
        choices=tuple(main.get("enum", ("true", "false") if main.get("type") == "boolean" else ())),
        word=word,
        many=any(one.get("type") == "array" for one in _values_of(main)),
    )
    default = described.get("default")
    return field if default is None else replace(field, default=_text(field, default))


def _values_of(described: Schema) -> list[Schema]:
    of = described.get("additionalProperties")
    return of.get("anyOf", []) if isinstance(of, dict) else []


def _kind(described: Schema) -> str:
    if "enum" in described or described.get("type") == "boolean":
        return "choice"
    match described.get("type"):
        case "integer" | "number" as kind:
            return kind
        case "array":
            return "lines"
        case "object" if isinstance(described.get("additionalProperties"), dict):
            return "pairs"
        case "object":
            return "json"
    return "text"


def _text(field: Field, value: Any) -> str:
    if field.kind == "json":
        return json.dumps(value, indent=2, ensure_ascii=False)
    if field.kind == "pairs" and isinstance(value, Mapping):
        each = ((name, one if isinstance(one, list) else [one]) for name, one in value.items())
        return "\n".join(f"{name}={one}" for name, several in each for one in several)
    if field.kind == "lines" and isinstance(value, list | tuple):
        return "\n".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)


def _parsed(field: Field, text: str) -> Any:
    if field.kind == "lines":
        return text if text == field.word else [line.strip() for line in text.splitlines() if line.strip()]
    if field.kind == "pairs":
        return _several(_pairs(text)) if field.many else dict(_pairs(text))
    if field.kind in ("integer", "number", "json") or set(field.choices) == {"true", "false"}:
        return _json_or_text(text)
    return text


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        if line.strip():
            name, _, value = line.partition("=")
            yield name.strip(), value.strip()


def _several(pairs: Iterable[tuple[str, str]]) -> dict[str, str | list[str]]:
    """A list for each name that is there more than once."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _at(value: Any, path: list[str]) -> Any:
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def _put(value: dict[str, Any], path: list[str], one: Any) -> None:
    for name in path[:-1]:
        value = value.setdefault(name, {})
    value[path[-1]] = one
