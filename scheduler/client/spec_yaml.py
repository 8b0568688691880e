"""YAML as specs are written in it: the types of YAML 1.2, and a refusal where people mean different things by it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import yaml

from scheduler.client.spec_text import refuse_unprintable, refused
from scheduler.errors import InvalidSpec, Problem

_CORE = "tag:yaml.org,2002:"
MAX_VALUES = 100_000
"""Aliases may repeat what is large; what they stand for, written out, may not be larger than this."""
_MAX_DEPTH = 100
_MOST_PROBLEMS = 20
_MERGE = f"{_CORE}merge"

_DOUBTFUL: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"(?:yes|no|on|off)\Z", re.IGNORECASE),
        "may be meant as true or false, or as text; write true or false, or put it in quotes",
    ),
    (
        re.compile(r"[-+]?0[0-9][0-9_]*\Z"),
        "begins with 0: some read it as octal, some as decimal, some as text; leave the 0 out, write 0o for octal, "
        "or put it in quotes",
    ),
    (
        re.compile(
            r"[-+]?(?:[0-9]+_[0-9_]*(?:\.[0-9_]*)?|0[xob][0-9a-fA-F]*_[0-9a-fA-F_]*|0b[01]+)(?:[eE][-+]?[0-9]+)?\Z"
        ),
        "is a number to some and text to others; write its digits alone, or put it in quotes",
    ),
)
"""Plain words that YAML 1.1, YAML 1.2 and people read differently: none of them is silently right."""
_HALVES = re.compile("[\ud800-\udbff][\udc00-\udfff]")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core types: `1e-4` is a number, and `12:30` and dates are text."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> str:
        """Two halves of a surrogate pair, each escaped, are one character, as in JSON."""
        value: str = super().construct_scalar(node)
        return _HALVES.sub(
            lambda pair: pair.group().encode("utf-16", "surrogatepass").decode("utf-16"), value
        )


_resolvers: Any = _Loader  # whose method has no types
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
    _resolvers.add_implicit_resolver(_CORE + _tag, re.compile(rf"(?:{_pattern})\Z"), list(_first))


def yaml_value(text: str, source: str) -> tuple[Any, yaml.Node | None]:
    """The value of the one document in *text*, and where its parts stand.  Raises InvalidSpec."""
    refuse_unprintable(text, source)
    node = _composed(text, source)
    check_nodes(node, source)
    if problems := list(islice(_ambiguous(node, source), _MOST_PROBLEMS)):
        raise InvalidSpec.of(*problems)
    if node is None:
        return None, None
    loader: Any = _Loader("")
    try:
        return loader.construct_document(node), node
    except yaml.YAMLError as error:
        raise _not_yaml(error, source) from None
    except (ValueError, KeyError, TypeError, OverflowError) as error:  # `!!int x`, `!!bool x`, 5,000 digits
        raise refused(_at(node, source), f"holds a value that is not of its type: {error}") from None
    finally:
        loader.dispose()


def nodes_of_json(text: str, source: str) -> yaml.Node | None:
    """Where the parts of a JSON text stand; None where YAML cannot read it.  JSON is YAML, but for tabs."""
    try:
        return _composed(text.replace("\t", " "), source)
    except InvalidSpec:
        return None


def check_nodes(node: yaml.Node | None, source: str) -> None:
    """Raises InvalidSpec for what YAML permits and a spec must not: a key given twice, a value in itself, or too many."""
    _size(node, source, (), {})


def lines_of(node: yaml.Node | None, path: str = "") -> Iterator[tuple[str, int]]:
    """The dotted path of each value, and the line that it stands on."""
    if path and node is not None:
        yield path, node.start_mark.line + 1
    prefix = f"{path}." if path else ""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from lines_of(value, f"{prefix}{key.value}")
            yield f"{prefix}{key.value}", key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from lines_of(item, f"{prefix}{index}")


def _composed(text: str, source: str) -> yaml.Node | None:
    loader: Any = None
    try:
        loader = _Loader(text)
        return loader.get_single_node()
    except yaml.YAMLError as error:
        raise _not_yaml(error, source) from None
    except RecursionError:
        raise _too_deep(source) from None
    finally:
        if loader is not None:
            loader.dispose()


def _size(node: yaml.Node | None, source: str, above: tuple[int, ...], known: dict[int, int]) -> int:
    """How many values *node* stands for with all aliases written out."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in above:
        raise refused(_at(node, source), "contains itself; write the value out")
    if len(above) > _MAX_DEPTH:
        raise _too_deep(_at(node, source))
    if id(node) not in known:
        below = (_size(one, source, (*above, id(node)), known) for one in _inner(node, source))
        known[id(node)] = 1 + sum(below)
        if known[id(node)] > MAX_VALUES:
            raise refused(
                _at(node, source), f"stands for more than {MAX_VALUES:,} values; put data in a file"
            )
    return known[id(node)]


def _inner(node: yaml.Node, source: str) -> Iterator[yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        yield from node.value
        return
    seen: set[str] = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise refused(_at(key, source), "has a key that is no text; a key is a word")
        if key.tag != _MERGE and key.value in seen:
            raise refused(_at(key, source), f"{key.value} is given twice; keep one of the two")
        seen.add(key.value)
        yield value


def _ambiguous(node: yaml.Node | None, source: str, path: str = "") -> Iterator[Problem]:
    """One problem for each plain word that is not the same to everybody."""
    prefix = f"{path}." if path else ""
    if isinstance(node, yaml.ScalarNode):
        if words := _doubt(node):
            where = f" ({_at(node, source)})" if path else ""
            yield Problem(path or source, f"{node.value[:60]} {words}{where}")
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _ambiguous(value, source, f"{prefix}{key.value}")
    elif node is not None:
        for index, item in enumerate(node.value):
            yield from _ambiguous(item, source, f"{prefix}{index}")


def _doubt(node: yaml.ScalarNode) -> str | None:
    if node.style is None and node.tag == f"{_CORE}str":
        for pattern, words in _DOUBTFUL:
            if pattern.match(node.value):
                return words
    return None


def _too_deep(where: str) -> InvalidSpec:
    return refused(where, f"is nested more than {_MAX_DEPTH} levels deep; flatten it")


def _not_yaml(error: yaml.YAMLError, source: str) -> InvalidSpec:
    mark = getattr(error, "problem_mark", None)
    where = f"{source}, line {mark.line + 1}, column {mark.column + 1}" if mark else source
    problem = str(getattr(error, "problem", None) or error)
    if "another document" in problem:
        return refused(
            where, "begins another document; a file holds one spec: keep one, and take out the line ---"
        )
    remedy = "; indent with blanks, not with tabs" if "'\\t'" in problem else ""
    return refused(where, f"is not YAML: {problem}{remedy}")


def _at(node: yaml.Node | None, source: str) -> str:
    return source if node is None else f"{source}, line {node.start_mark.line + 1}"
