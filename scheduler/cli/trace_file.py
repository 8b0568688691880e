"""Traces as CSV files, and clusters as words: what `scheduler policy` reads and writes."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from scheduler.core.history import SeenNode
from scheduler.core.model import Gang, Node, NodeId
from scheduler.core.needs import Outline
from scheduler.core.node_labels import ACCELERATOR_TYPE, GPU
from scheduler.core.replay import Entry
from scheduler.errors import InvalidRequest

CPUS_OF_A_GPU = 64.0
"""A trace says nothing of CPUs: beside GPUs there are always enough of them."""
_NODES = re.compile(r"(\d+)x(\d+)(?:(cpus?)|:([\w.-]+))?")


@validated(frozen=True, kw_only=True)
class Row:
    """One line of a trace."""

    submit_s: float
    duration_s: Annotated[float, Field(gt=0)]
    num_gpus: Annotated[float, Field(gt=0)]
    project: str = ""
    user: str = ""
    gpus_per_rank: Annotated[float | None, Field(gt=0)] = None
    priority: int = 0
    preemptible: bool = True
    gpu: str = ""

    def entry(self) -> Entry:
        """Raises ValueError for a gang that cannot be."""
        each = self.gpus_per_rank or min(1.0, self.num_gpus)
        num_ranks = round(self.num_gpus / each)
        return Entry(
            submit_s=self.submit_s,
            duration_s=self.duration_s,
            gang=Gang(num_ranks=num_ranks, gpus_per_rank=each, on={GPU: self.gpu} if self.gpu else {}),
            project=self.project,
            user=self.user,
            priority=self.priority,
            preemptible=self.preemptible,
        )


ROW: TypeAdapter[Row] = TypeAdapter(Row)
ROW_FIELDS = tuple(field.name for field in dataclasses.fields(Row))


def read_trace(path: str) -> Iterator[Entry]:
    """Raises InvalidRequest: what is wrong, in which line and column."""
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            for row in rows:
                yield _entry(row, f"{path}, line {rows.line_num}")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from None


def _entry(row: Mapping[str, Any], where: str) -> Entry:
    given = {name: value for name, value in row.items() if name in ROW_FIELDS and value not in (None, "")}
    try:
        return ROW.validate_python(given).entry()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        column = ".".join(map(str, first["loc"])) or "num_gpus"
        raise InvalidRequest(f"{where}: {column}: {first['msg']}") from None


def write_trace(entries: Iterable[Entry], file: TextIO) -> int:
    """As `read_trace` takes it.  Returns how many were left out: the format has no jobs without GPUs."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(ROW_FIELDS)
    left_out = 0
    for entry in entries:
        each = entry.gang.gpus_per_rank
        if not each:
            left_out += 1
            continue
        num_gpus = entry.gang.fewest * each
        times = f"{entry.submit_s:.6f}", f"{entry.duration_s:.6f}"
        owner = entry.project, entry.user
        writer.writerow(
            (*times, f"{num_gpus:g}", *owner, f"{each:g}", entry.priority, str(entry.preemptible).lower())
        )
    return left_out


def outline(nodes: str) -> Outline:
    """Raises InvalidRequest for what is no list of nodes."""
    parts = [_NODES.fullmatch(part.strip()) for part in nodes.split(",")]
    if not all(parts):
        raise InvalidRequest(
            f"--nodes {nodes}: write it as 48x8,1x6, for 48 nodes with 8 GPUs and one with 6; "
            "48x8:H100 says of which kind; 2x16cpus are two with 16 CPUs and no GPU"
        )
    kinds = [(float(part[2]), bool(part[3]), part[4]) for part in parts if part for _ in range(int(part[1]))]
    made = (_node(number, *kind) for number, kind in enumerate(kinds))
    return Outline(tuple(made))


def _node(number: int, size: float, is_cpus: bool, gpu: str | None) -> Node:
    cpus, gpus = (size, 0.0) if is_cpus else (CPUS_OF_A_GPU * size, size)
    labels = {ACCELERATOR_TYPE: gpu} if gpu else {}
    return Node(id=NodeId(f"node-{number:04d}"), cpus=cpus, gpus=gpus, labels=labels)


def as_words(nodes: Sequence[SeenNode]) -> str:
    """As `outline` reads it; equal ones stand together."""
    kinds = [f"{node.gpus}" if node.gpus else f"{node.cpus}cpus" for node in nodes]
    return ",".join(f"{kinds.count(kind)}x{kind}" for kind in dict.fromkeys(kinds))
