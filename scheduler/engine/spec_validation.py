"""The door: a spec that could never run is refused before it queues, with the field and the remedy."""

from __future__ import annotations

import asyncio
import base64
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from pydantic import BaseModel, ValidationError

from scheduler.api.health import LoopDocument, LoopList
from scheduler.core import placement
from scheduler.core.codec import UNREADABLE_LOOP
from scheduler.core.memory_estimate import ModelShape
from scheduler.core.model import SHIPPED, SPEC, Job, JobSpec, Json, Node, ShippedCode
from scheduler.core.rows import parse_spec
from scheduler.engine.cluster import Cluster
from scheduler.engine.inspection import READ_S, Inspection, Question
from scheduler.engine.inspector import Finding
from scheduler.errors import InvalidSpec, NotAllowed, Problem

BUILT_IN: dict[str, tuple[str, str]] = {
    "sft": ("train_loops.sft:train", "train_loops.config:SftConfig"),
    "torch_ddp": ("train_loops.torch_ddp:train", "train_loops.config:TorchDdpConfig"),
}
"""Name -> (function, class of its config).  Named by strings: the scheduler knows no loop's code."""

CHECKED_BY = {"messages_jsonl": "train_loops.conversations:check"}
"""Kind of file -> the function of the loops that reads such a file, so that what it takes is what is checked."""

MAX_SPEC_BYTES = 256_000
_MOST_AT_ONCE = 16
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


@dataclass(frozen=True, slots=True)
class Accepted:
    """A spec that could run, as it will: its paths are those that were looked at."""

    spec: JobSpec
    notes: tuple[str, ...] = ()
    """What could not be checked, in words."""


@dataclass(slots=True)
class _Candidate:
    """A spec on its way through the door."""

    spec: JobSpec
    problems: list[Problem]
    files: dict[str, Question] = field(default_factory=dict[str, Question])
    """Field of its config -> what is to be asked about the file that it names."""

    def decided(self, found: Mapping[Question, Finding]) -> Accepted:
        """Raises InvalidSpec."""
        findings = {name: found[question] for name, question in self.files.items()}
        problems = [Problem(f"config.{name}", one.problem) for name, one in findings.items() if one.problem]
        if self.problems or problems:
            raise InvalidSpec.of(*self.problems, *problems)
        config = self.spec.config | {name: one.path for name, one in findings.items()}
        notes = tuple(one.note for one in findings.values() if one.note)
        return Accepted(replace(self.spec, config=config), notes)


class SpecValidator:
    """Checks specs against this scheduler's settings; files are looked at in a process of its own."""

    def __init__(
        self,
        allowed_loops: Sequence[str],
        roots: Sequence[Path],
        node_types: Iterable[Node] = (),
        *,
        allow_shipped_code: bool = False,
        read_s: float = READ_S,
    ) -> None:
        self._allowed = tuple(allowed_loops)
        self._allow_shipped_code = allow_shipped_code
        self._files = Inspection(roots, read_s=read_s)
        self._node_types = tuple(node_types)
        # Threads of its own: whoever waits for a file system that hangs holds up no other work.
        self._threads = ThreadPoolExecutor(_MOST_AT_ONCE, "door")

    async def admit(self, spec: JobSpec, nodes: Sequence[Node]) -> Accepted:
        """As `check`, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.check, spec, nodes)

    async def admit_all(self, specs: Sequence[JobSpec], nodes: Sequence[Node]) -> list[Accepted]:
        """As `check_all`, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.check_all, specs, nodes)

    async def shape(self, folder: str) -> ModelShape:
        """Of the model in *folder*.  Raises ValueError, in words, when it does not tell."""
        question = Question("shape", folder)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, self._files.of, [question])
        if words := found[question].problem or found[question].shape.get("unknown"):
            raise ValueError(words)
        return ModelShape(**found[question].shape)

    def check(self, spec: JobSpec, nodes: Sequence[Node]) -> Accepted:
        """*spec* as it will run.  Raises InvalidSpec naming every field that is wrong."""
        candidate = self._candidate(spec, nodes)
        return candidate.decided(self._files.of(list(dict.fromkeys(candidate.files.values()))))

    def check_all(self, specs: Sequence[JobSpec], nodes: Sequence[Node]) -> list[Accepted]:
        """As `check`, for all of them; the fields of the problems begin with `jobs.<index>.`

        A file that several of them name is looked at once.
        """
        candidates = [self._candidate(spec, nodes) for spec in specs]
        found = self._files.of(list(dict.fromkeys(q for one in candidates for q in one.files.values())))
        accepted, problems = list[Accepted](), list[Problem]()
        for index, candidate in enumerate(candidates):
            try:
                accepted.append(candidate.decided(found))
            except InvalidSpec as error:
                problems += [Problem(f"jobs.{index}.{one.field}", one.message) for one in error.problems]
        if problems:
            raise InvalidSpec.of(*problems)
        return accepted

    def _candidate(self, spec: JobSpec, nodes: Sequence[Node]) -> _Candidate:
        problems = [*_size(spec), *_array(spec), *_not_finite(spec.config, "config"), *self._loop(spec)]
        if problems:
            return _Candidate(spec, problems)
        candidate = self._config(spec)
        candidate.problems += self._resources(spec, nodes)
        return candidate

    def as_it_would_run(self, spec: JobSpec) -> Json:
        """*spec*, which has passed `check`, with every default written out, those of its loop's config too."""
        written: Json = SPEC.dump_python(spec, mode="json")
        if spec.loop in BUILT_IN:
            config = resolve_name(BUILT_IN[spec.loop][1]).model_validate(spec.config)
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

    def _config(self, spec: JobSpec) -> _Candidate:
        if spec.loop not in BUILT_IN:
            return _Candidate(spec, [])
        try:
            config = resolve_name(BUILT_IN[spec.loop][1]).model_validate(spec.config)
        except ValidationError as error:
            return _Candidate(spec, [_config_problem(detail) for detail in error.errors(include_url=False)])
        candidate = _Candidate(spec, [])
        for name, kind, value in _paths(config):
            if words := _no_place(kind, value):
                candidate.problems.append(Problem(f"config.{name}", words))
            elif not _is_hub_id(kind, value):
                candidate.files[name] = Question(kind, value, CHECKED_BY.get(kind, ""))
        return candidate

    def _resources(self, spec: JobSpec, nodes: Sequence[Node]) -> list[Problem]:
        possible = [*nodes, *self._node_types]
        reason = placement.feasible(spec.resources, possible) if possible else None
        return [Problem("resources", reason.message)] if reason else []


async def check_again(job: Job, validator: SpecValidator, cluster: Cluster) -> None:
    """What was valid when it was submitted may be gone by now: a file moved, a loop no longer allowed.

    Raises NotAllowed.
    """
    try:
        spec = parse_spec(job.raw_spec) if job.spec.loop == UNREADABLE_LOOP else job.spec
        await validator.admit(replace(spec, array=None), cluster.possible_nodes())
    except InvalidSpec as error:
        words = "; ".join(map(str, error.problems))
        raise NotAllowed(f"job {job.id} cannot start, its stored spec is not valid now: {words}") from error


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


def _loop_document(name: str, config: str) -> LoopDocument:
    model = resolve_name(config)
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


def _array(spec: JobSpec) -> list[Problem]:
    """As when the spec of such a job is submitted again: nobody makes a place in an array by hand."""
    words = "is made by the scheduler; leave it out, or submit an array to /api/training/arrays"
    return [Problem("array", words)] if spec.array else []


def _not_finite(value: Any, field: str) -> list[Problem]:
    """NaN and infinity are not JSON, and no number of a config means them."""
    if isinstance(value, float) and not math.isfinite(value):
        return [Problem(field, f"{value} is not a number that can be used; give a finite one")]
    if isinstance(value, dict):
        return [problem for key, item in value.items() for problem in _not_finite(item, f"{field}.{key}")]
    if isinstance(value, list):
        return [problem for i, item in enumerate(value) for problem in _not_finite(item, f"{field}.{i}")]
    return []


def _paths(config: BaseModel) -> Iterator[tuple[str, str, str]]:
    """Name, kind and value of each field that names a file or folder."""
    for name, info in type(config).model_fields.items():
        extra = info.json_schema_extra
        kind = extra.get("path") if isinstance(extra, dict) else None
        if (value := getattr(config, name)) is not None and isinstance(kind, str):
            yield name, kind, value


def _is_hub_id(kind: str, value: str) -> bool:
    return kind == "model" and not Path(value).is_absolute()


def _no_place(kind: str, value: str) -> str | None:
    if Path(value).is_absolute():
        return None
    if kind == "model":
        neither = f"{value!r} is neither an absolute path nor a hub id such as `org/name`"
        return None if _HUB_ID.fullmatch(value) else neither
    return f"{value!r} is a relative path, and the job runs elsewhere; give the absolute path"
