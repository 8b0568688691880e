"""`scheduler policy try`: what a policy would have done with a trace, beside the policy of today.  Asks no scheduler."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated
from rich.table import Table

from scheduler.cli.options import AsJson
from scheduler.cli.views import console
from scheduler.core.contender import Rules, Share, rules_of
from scheduler.core.durations import span
from scheduler.core.model import Gang, Node, NodeId
from scheduler.core.needs import Outline
from scheduler.core.node_labels import ACCELERATOR_TYPE, GPU
from scheduler.core.replay import Entry, Replay, World
from scheduler.core.replay_report import Report, report
from scheduler.errors import InvalidRequest

CPUS_OF_A_GPU = 64.0
"""A trace says nothing of CPUs: there are always enough of them."""
_NODES = re.compile(r"(\d+)x(\d+)(?::([\w.-]+))?")
_SHARE = re.compile(r"([^:]*):(\w+)=([\d.]+)")


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
        )


ROW: TypeAdapter[Row] = TypeAdapter(Row)


@dataclass(frozen=True)
class Played:
    """One policy on one trace."""

    replay: Replay
    report: Report

    def document(self) -> dict[str, Any]:
        passes_ms = sorted(1000 * seconds for seconds in self.replay.pass_s)
        pass_ms = {"p50": passes_ms[len(passes_ms) // 2], "p99": passes_ms[int(0.99 * len(passes_ms))]}
        return {**asdict(self.report), "pass_ms": pass_ms}


def policy_try(
    trace: Annotated[
        str,
        typer.Option(
            help="CSV with submit_s, duration_s, num_gpus, project, and if it is known user, gpus_per_rank, priority, "
            "gpu (the kind).",
            show_default=False,
        ),
    ],
    nodes: Annotated[
        str,
        typer.Option(
            help="The cluster, as 48x8,1x6: 48 nodes with 8 GPUs, and one with 6; 48x8:H100 says of which kind."
        ),
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="RULE=VALUE", help="A rule of the policy, as preempt=class or worth=3."
        ),
    ] = None,
    shares: Annotated[
        list[str] | None,
        typer.Option(
            "--share", metavar="PROJECT:WHAT=VALUE", help="vision:weight=2, vision:quota=8, vision:limit=16."
        ),
    ] = None,
    restart_s: Annotated[
        float, typer.Option(min=0, help="What a preempted run loses until it gets on.")
    ] = 60.0,
    tells: Annotated[float, typer.Option(min=0, max=1, help="Part of the jobs that tell their steps.")] = 1.0,
    after: Annotated[
        float, typer.Option(min=0, max=1, help="Part of a job after which its steps tell something.")
    ] = 0.05,
    error: Annotated[float, typer.Option(min=0, max=1, help="By how much they are wrong at most.")] = 0.1,
    early: Annotated[
        float, typer.Option(min=0, max=1, help="Part of the jobs that end before their last step.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Decides what chance does.")] = 0,
    log: Annotated[
        str | None,
        typer.Option(help="Write every start and stop there, with nodes and reckoning, as JSON lines."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Play a trace through the policy, and through that of today; needs no scheduler."""
    entries, cluster = list(read_trace(trace)), outline(nodes)
    _require_room(entries, cluster, trace)
    rules, by_project = _rules(changes or []), _shares(shares or [])
    world = World(restart_s=restart_s, tells=tells, after=after, error=error, early=early, seed=seed)
    today, new = (_played(entries, cluster, each, world, by_project) for each in (None, rules))
    if log is not None:
        write_log(Path(log), new.replay)
    if as_json:
        print(json.dumps({"today": today.document(), "new": new.document()}))
    else:
        _show(today, new)


def read_trace(path: str) -> Iterator[Entry]:
    """Raises InvalidRequest: what is wrong, in which line and column."""
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            for row in rows:
                yield _entry(row, f"{path}, line {rows.line_num}")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from None


def outline(nodes: str) -> Outline:
    """Raises InvalidRequest for what is no list of nodes."""
    parts = [_NODES.fullmatch(part.strip()) for part in nodes.split(",")]
    if not all(parts):
        raise InvalidRequest(
            f"--nodes {nodes}: write it as 48x8,1x6, for 48 nodes with 8 GPUs and one with 6; 48x8:H100 says of which kind"
        )
    sizes = [(int(part[2]), part[3]) for part in parts if part for _ in range(int(part[1]))]
    made = (
        Node(
            id=NodeId(f"node-{number:04d}"),
            cpus=CPUS_OF_A_GPU * size,
            gpus=size,
            labels={ACCELERATOR_TYPE: kind} if kind else {},
        )
        for number, (size, kind) in enumerate(sizes)
    )
    return Outline(tuple(made))


def write_log(path: Path, replay: Replay) -> None:
    with path.open("w", encoding="utf-8") as file:
        for line in replay.log:
            file.write(json.dumps(asdict(line)) + "\n")


def _entry(row: Mapping[str, Any], where: str) -> Entry:
    given = {name: value for name, value in row.items() if name in ROW_FIELDS and value not in (None, "")}
    try:
        return ROW.validate_python(given).entry()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        column = ".".join(map(str, first["loc"])) or "num_gpus"
        raise InvalidRequest(f"{where}: {column}: {first['msg']}") from None


ROW_FIELDS = frozenset(field.name for field in dataclasses.fields(Row))


def _require_room(entries: Iterable[Entry], cluster: Outline, trace: str) -> None:
    """A job that never fits would wait for ever, and so would the replay."""
    count = 0
    for number, entry in enumerate(entries):
        count += 1
        if cluster.in_all(cluster.need_of(entry.gang)) < entry.gang.fewest:
            raise InvalidRequest(
                f"job {number + 1} of {trace} needs {entry.gang}, which these nodes could never hold"
            )
    if not count:
        raise InvalidRequest(f"{trace} has no jobs; its first line names the columns")


def _rules(changes: Iterable[str]) -> Rules:
    try:
        return rules_of(changes)
    except InvalidRequest as error:
        raise InvalidRequest(f"--set {error.message}") from None


def _shares(given: Iterable[str]) -> dict[str, Share]:
    found: dict[str, dict[str, float]] = {}
    for text in given:
        parts = _SHARE.fullmatch(text)
        if parts is None or parts[2] not in ("weight", "quota", "limit"):
            raise InvalidRequest(
                f"--share {text}: write it as vision:weight=2, vision:quota=8 or vision:limit=16"
            )
        found.setdefault(parts[1], {})[parts[2]] = float(parts[3])
    return {project: Share(**values) for project, values in found.items()}


def _played(
    entries: list[Entry], cluster: Outline, rules: Rules | None, world: World, shares: Mapping[str, Share]
) -> Played:
    replay = Replay(entries, cluster, rules, world, shares=shares, clock=time.process_time).play()
    return Played(replay, report(replay.entries, replay.log, cluster))


def _show(today: Played, new: Played) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("", "today", "new"):
        table.add_column(name, justify="left" if not name else "right")
    for words, value in _LINES.items():
        table.add_row(words, *(value(one.report) for one in (today, new)))
    for project in new.report.projects:
        hours = (one.report.projects[project].gpu_s / 3600 for one in (today, new))
        table.add_row(f"GPU hours of {project or 'no project'}", *(f"{each:,.0f}" for each in hours))
    console().print(table)


_LINES = {
    "average time from submit to end": lambda one: span(one.avg_jct_s),
    "half of the jobs are done within": lambda one: span(one.p50_s),
    "99 of 100 are done within": lambda one: span(one.p99_s),
    "longest wait": lambda one: span(one.longest_wait_s),
    "GPU time lost to preemptions": lambda one: f"{one.lost_share:.2%}",
    "preemptions": lambda one: f"{one.preemptions:,}",
    "most preemptions of one job": lambda one: f"{one.max_preemptions_of_one_job}",
}  # fmt: skip
