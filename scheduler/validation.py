"""The door: a spec that could never run is refused before it queues, with the field and the remedy."""

from __future__ import annotations

import base64
import importlib
import json
import math
import re
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from scheduler.core import placement
from scheduler.core.model import SHIPPED, SPEC, JobSpec, Json, Node, ShippedCode
from scheduler.documents import LoopDocument, LoopList
from scheduler.errors import InvalidSpec, Problem

BUILT_IN: dict[str, tuple[str, str]] = {
    "sft": ("train_loops.sft:train", "train_loops.config:SftConfig"),
    "torch_ddp": ("train_loops.torch_ddp:train", "train_loops.config:TorchDdpConfig"),
}
"""Name -> (function, class of its config).  Named by strings: the scheduler knows no loop's code."""

MAX_SPEC_BYTES = 256_000
MAX_ROWS_CHECKED = 10_000
_OWN_LOOP = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_NO_SHIPPED_CODE = (
    "this scheduler takes no function that is sent along, because whoever may submit could then run anything; put it "
    "into a module that the cluster can import and submit `module:function`, or start the scheduler with "
    "SCHEDULER_ALLOW_SHIPPED_CODE=true"
)
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def function_of(loop: str) -> str:
    """`module:function` for a loop by name or by path."""
    return BUILT_IN[loop][0] if loop in BUILT_IN else loop


class Door:
    """Checks specs against this scheduler's settings.  Reads files, so call it from a thread."""

    def __init__(
        self,
        allowed_loops: Sequence[str],
        roots: Sequence[Path],
        node_types: Iterable[Node] = (),
        *,
        allow_shipped_code: bool = False,
    ) -> None:
        self._allowed = tuple(allowed_loops)
        self._allow_shipped_code = allow_shipped_code
        self._roots = tuple(root.expanduser().resolve() for root in roots)
        self._node_types = tuple(node_types)

    def check(self, spec: JobSpec, nodes: Sequence[Node]) -> None:
        """Raise InvalidSpec naming every field that is wrong; return when the job could run on such nodes."""
        problems = [*_size(spec), *_not_finite(spec.config, "config"), *self._loop(spec)]
        if not problems:
            problems += [*self._config(spec), *self._resources(spec, nodes)]
        if problems:
            raise InvalidSpec.of(*problems)

    def check_all(self, specs: Sequence[JobSpec], nodes: Sequence[Node]) -> None:
        """As `check`, for all of them; the fields of the problems begin with `jobs.<index>.`"""
        problems: list[Problem] = []
        for index, spec in enumerate(specs):
            try:
                self.check(spec, nodes)
            except InvalidSpec as error:
                problems += [Problem(f"jobs.{index}.{one.field}", one.message) for one in error.problems]
        if problems:
            raise InvalidSpec.of(*problems)

    def as_it_would_run(self, spec: JobSpec) -> Json:
        """*spec*, which has passed `check`, with every default written out, those of its loop's config too."""
        written: Json = SPEC.dump_python(spec, mode="json")
        if spec.loop in BUILT_IN:
            config = _load(BUILT_IN[spec.loop][1]).model_validate(spec.config)
            written["config"] = config.model_dump(mode="json")
        return written

    def loops(self) -> LoopList:
        documents = [_loop_document(name, config) for name, (_, config) in BUILT_IN.items()]
        shipped = [f"{SHIPPED}*"] if self._allow_shipped_code else []
        return LoopList(loops=documents, allowed=[*self._allowed, *shipped])

    def _loop(self, spec: JobSpec) -> list[Problem]:
        if spec.code is not None or spec.loop.startswith(SHIPPED):
            return self._code(spec)
        if spec.loop in BUILT_IN:
            return []
        if not _OWN_LOOP.fullmatch(spec.loop):
            close = get_close_matches(spec.loop, BUILT_IN, n=1)
            hint = (
                f"did you mean {close[0]!r}?"
                if close
                else f"use {' or '.join(BUILT_IN)}, or `module:function`"
            )
            return [Problem("loop", f"there is no loop {spec.loop[:80]!r}; {hint}")]
        if any(fnmatchcase(spec.loop, pattern) for pattern in self._allowed):
            return []
        allowed = ", ".join(self._allowed) or "none"
        remedy = f"start the scheduler with SCHEDULER_ALLOWED_LOOPS={spec.loop.split(':')[0]}:*"
        return [Problem("loop", f"{spec.loop!r} is not allowed here (allowed: {allowed}); {remedy}")]

    def _code(self, spec: JobSpec) -> list[Problem]:
        if not self._allow_shipped_code:
            return [Problem("code", _NO_SHIPPED_CODE)]
        if not spec.loop.startswith(SHIPPED):
            return [
                Problem(
                    "loop",
                    f"{spec.loop!r} comes with code of its own; say `{SHIPPED}name`, or leave `code` out",
                )
            ]
        return shipped_problems(spec.code)

    def _config(self, spec: JobSpec) -> list[Problem]:
        if spec.loop not in BUILT_IN:
            return []
        try:
            config = _load(BUILT_IN[spec.loop][1]).model_validate(spec.config)
        except ValidationError as error:
            return [_config_problem(detail) for detail in error.errors(include_url=False)]
        return self._paths(config)

    def _paths(self, config: BaseModel) -> list[Problem]:
        problems: list[Problem] = []
        for name, info in type(config).model_fields.items():
            extra = info.json_schema_extra
            kind = extra.get("path") if isinstance(extra, dict) else None
            value = getattr(config, name)
            if kind and value is not None:
                check = _dataset if kind == "messages_jsonl" else _model
                problems += [Problem(f"config.{name}", words) for words in check(value, self._roots)]
        return problems

    def _resources(self, spec: JobSpec, nodes: Sequence[Node]) -> list[Problem]:
        possible = [*nodes, *self._node_types]
        reason = placement.feasible(spec.resources, possible) if possible else None
        return [Problem("resources", reason.message)] if reason else []


def shipped_problems(code: ShippedCode | None) -> list[Problem]:
    """What would keep this Python from reading it.  It is not read here: reading it runs it."""
    if code is None or not code.pickle:
        words = "the function is not there (answers leave it out); submit it again from where it is"
        return [Problem("code", words)]
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if code.python != here:
        words = f"it was made by Python {code.python} and the cluster runs {here}; submit with Python {here}"
        return [Problem("code.python", words)]
    try:
        base64.b64decode(code.pickle, validate=True)
    except ValueError as error:
        return [Problem("code.pickle", f"is not base64 ({error}); let the Python client make it")]
    return []


def _load(path: str) -> type[BaseModel]:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _loop_document(name: str, config: str) -> LoopDocument:
    model = _load(config)
    return LoopDocument(
        name=name, description=(model.__doc__ or "").strip(), config_schema=model.model_json_schema()
    )


def _config_problem(detail: Any) -> Problem:
    field = ".".join(["config", *map(str, detail["loc"])])
    return Problem(field, detail["msg"].removeprefix("Value error, "))


def _size(spec: JobSpec) -> list[Problem]:
    size = len(SPEC.dump_json(spec))
    if size <= MAX_SPEC_BYTES:
        return []
    return [
        Problem(
            "config", f"the spec is {size:,} bytes, at most {MAX_SPEC_BYTES:,} are taken; put data in a file"
        )
    ]


def _not_finite(value: Any, field: str) -> list[Problem]:
    """NaN and infinity are not JSON, and no number of a config means them."""
    if isinstance(value, float) and not math.isfinite(value):
        return [Problem(field, f"{value} is not a number that can be used; give a finite one")]
    if isinstance(value, dict):
        return [problem for key, item in value.items() for problem in _not_finite(item, f"{field}.{key}")]
    if isinstance(value, list):
        return [problem for i, item in enumerate(value) for problem in _not_finite(item, f"{field}.{i}")]
    return []


def _outside(path: Path, roots: Sequence[Path]) -> str | None:
    real = path.resolve()
    if any(real.is_relative_to(root) for root in roots):
        return None
    allowed = ", ".join(map(str, roots))
    return f"{path} is outside the folders that jobs may read ({allowed}); move it there or set SCHEDULER_DATA_ROOTS"


def _dataset(value: str, roots: Sequence[Path]) -> list[str]:
    path = Path(value).expanduser()
    if "\0" in value or len(value) > 4096:
        return ["this is not a path"]
    if not path.is_absolute():
        return [f"{value!r} is a relative path, and the job runs elsewhere; give the absolute path"]
    if outside := _outside(path, roots):
        return [outside]
    if not path.is_file():
        return [f"there is no file {path}; put it where every node can read it"]
    return _rows(path)


def _rows(path: Path) -> list[str]:
    count = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if number > MAX_ROWS_CHECKED:
                    break
                if line.strip():
                    count += 1
                    if words := _row(line):
                        return [f"{path}, line {number}: {words}"]
    except UnicodeDecodeError:
        return [f"{path} is not UTF-8 text; give a JSONL file with one conversation a line"]
    except OSError as error:
        return [f"{path} cannot be read: {error.strerror}"]
    return [] if count else [f"{path} is empty; it needs one conversation a line"]


def _row(line: str) -> str | None:
    shape = 'a line looks like {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return f"this is not JSON; {shape}"
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        return f"`messages` is missing; {shape}"
    for message in messages:
        fine = (
            isinstance(message, dict)
            and isinstance(message.get("role"), str)
            and isinstance(message.get("content"), str)
        )
        if not fine:
            return f"a message needs `role` and `content`, both text; {shape}"
    if not any(message["role"] == "assistant" for message in messages):
        return f"there is no message of the assistant to learn from; {shape}"
    return None


def _model(value: str, roots: Sequence[Path]) -> list[str]:
    if "\0" in value or len(value) > 4096:
        return ["this is neither a folder nor a hub id"]
    path = Path(value).expanduser()
    if not path.is_absolute():
        if _HUB_ID.fullmatch(value):
            return []
        return [f"{value!r} is neither an absolute path nor a hub id such as `org/name`"]
    if outside := _outside(path, roots):
        return [outside]
    if not path.is_dir():
        return [f"there is no folder {path}; save the model there with save_pretrained, or give a hub id"]
    if not (path / "config.json").is_file():
        return [
            f"{path} is not a model folder: it has no config.json; save the model there with save_pretrained"
        ]
    return []
