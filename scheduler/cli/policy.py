"""`scheduler policy`: what a policy would have done with a trace, or with one's own past, beside that of today."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from scheduler.cli.options import AsJson
from scheduler.cli.past_jobs import nodes_seen, read_past, sentence
from scheduler.cli.server import read_settings
from scheduler.cli.trace_file import outline, read_trace, write_trace
from scheduler.cli.views import console
from scheduler.core.contender import HOUR_S, Rules, Share, rules_of
from scheduler.core.durations import span
from scheduler.core.needs import Outline
from scheduler.core.replay import Entry, Replay, World
from scheduler.core.replay_report import Report, report
from scheduler.errors import InvalidRequest

_SHARE = re.compile(r"([^:]*):(\w+)=([\d.]+)")

Trace = Annotated[
    str | None,
    typer.Option(
        help="CSV with submit_s, duration_s, num_gpus, project, and if it is known user, gpus_per_rank, priority, "
        "preemptible, gpu (the kind).",
    ),
]
Past = Annotated[
    str | None, typer.Option("--history", help="Instead of a trace: the jobs of your journal, as 30d or 12h.")
]
JournalFile = Annotated[
    str | None,
    typer.Option(
        "--journal",
        help="The file of the journal; a scheduler may be using it.  Default: in SCHEDULER_STATE_DIR.",
    ),
]
Nodes = Annotated[
    str | None,
    typer.Option(
        help="The cluster, as 48x8,1x6: 48 nodes with 8 GPUs, and one with 6; 48x8:H100 says of which kind, 2x16cpus "
        "have none.  Default with --history: those that its runs show.",
    ),
]


@dataclass(frozen=True)
class Material:
    """What is played, and where."""

    entries: list[Entry]
    cluster: Outline
    today: Rules | None
    """None for `fifo`."""
    shares: Mapping[str, Share]
    notes: tuple[str, ...] = ()
    """What people need to know of it."""


@dataclass(frozen=True)
class Played:
    """One policy on one trace."""

    replay: Replay
    report: Report

    def document(self) -> dict[str, Any]:
        passes_ms = sorted(1000 * seconds for seconds in self.replay.pass_s)
        pass_ms = {"p50": passes_ms[len(passes_ms) // 2], "p99": passes_ms[int(0.99 * len(passes_ms))]}
        return {**asdict(self.report), "pass_ms": pass_ms}

    def gpu_hours(self, project: str) -> float:
        """Of its jobs that got to their ends."""
        found = self.report.projects.get(project)
        return found.gpu_s / HOUR_S if found else 0.0


def policy_try(
    trace: Trace = None,
    nodes: Nodes = None,
    history: Past = None,
    journal: JournalFile = None,
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
    """Play a trace, or your own past, through the policy and through that of today; needs no scheduler."""
    given = _material(trace, history, journal, nodes)
    rules, shares_now = _rules(changes or []), {**given.shares, **_shares(shares or [])}
    world = World(restart_s=restart_s, tells=tells, after=after, error=error, early=early, seed=seed)
    today, new = (_played(given, each, world, shares_now) for each in (given.today, rules))
    if log is not None:
        write_log(Path(log), new.replay)
    if as_json:
        print(json.dumps({"today": today.document(), "new": new.document(), "notes": given.notes}))
        return
    _show(today, new)
    for note in given.notes:
        print(note, file=sys.stderr)


def policy_export(
    history: Annotated[
        str,
        typer.Option(help="Jobs that were submitted within this time, as 30d or 12h.", show_default=False),
    ],
    journal: JournalFile = None,
) -> None:
    """Write the past of your journal as a trace to stdout, for `policy try --trace`; needs no scheduler."""
    past = read_past(history, journal).history
    without_gpus = write_trace(past.entries, sys.stdout)
    print(sentence(history, past), file=sys.stderr)
    if without_gpus:
        print(
            f"{without_gpus:,} left out of the trace, which has no place for jobs without GPUs",
            file=sys.stderr,
        )


def _material(trace: str | None, past: str | None, journal: str | None, nodes: str | None) -> Material:
    """Raises InvalidRequest for what cannot be played."""
    if (trace is None) == (past is None):
        raise InvalidRequest("give --trace FILE or --history 30d, one of the two")
    if trace is None:
        assert past
        return _own_past(past, journal, nodes)
    if journal is not None:
        raise InvalidRequest("--journal belongs to --history; a trace needs none")
    if nodes is None:
        raise InvalidRequest("--trace says nothing of nodes: give them with --nodes, as 48x8,1x6")
    entries, cluster = list(read_trace(trace)), outline(nodes)
    _require_room(entries, cluster, trace)
    return Material(entries, cluster, today=None, shares={})


def _own_past(length: str, journal: str | None, nodes: str | None) -> Material:
    settings, own = read_settings(), read_past(length, journal)
    how = ()
    if nodes is None:
        nodes, *how = nodes_seen(own.history)
    cluster = outline(nodes)
    history = own.history.on(cluster)
    if not history.entries:
        raise InvalidRequest(f"nothing to play: {sentence(length, history)}")
    is_fifo = settings.policy == "fifo"
    today = "fifo" if is_fifo else f"fair, with {str(settings.policy_rules) or 'its default rules'}"
    return Material(
        list(history.entries),
        cluster,
        today=None if is_fifo else settings.policy_rules,
        shares=own.shares,
        notes=(sentence(length, history), *how, f"today is {today}, by the settings of this environment"),
    )


def write_log(path: Path, replay: Replay) -> None:
    with path.open("w", encoding="utf-8") as file:
        for line in replay.log:
            file.write(json.dumps(asdict(line)) + "\n")


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


def _played(given: Material, rules: Rules | None, world: World, shares: Mapping[str, Share]) -> Played:
    replay = Replay(given.entries, given.cluster, rules, world, shares=shares, clock=time.process_time).play()
    if not any(line.what == "end" for line in replay.log):
        raise InvalidRequest(
            "none of the jobs could ever start: with `preemptible: false` a job starts within the quota of its project "
            "only; give one with --share"
        )
    return Played(replay, report(replay.entries, replay.log, given.cluster))


def _show(today: Played, new: Played) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("", "today", "new"):
        table.add_column(name, justify="left" if not name else "right")
    for words, value in _LINES.items():
        table.add_row(words, *(value(one.report) for one in (today, new)))
    for project in sorted(today.report.projects | new.report.projects):
        hours = (one.gpu_hours(project) for one in (today, new))
        table.add_row(f"GPU hours of {project or 'no project'}", *(f"{each:,.0f}" for each in hours))
    console().print(table)


_LINES = {
    "jobs that got to their ends": lambda one: f"{one.jobs:,}",
    "average time from submit to end": lambda one: span(one.avg_jct_s),
    "half of the jobs are done within": lambda one: span(one.p50_s),
    "99 of 100 are done within": lambda one: span(one.p99_s),
    "longest wait": lambda one: span(one.longest_wait_s),
    "GPU time lost to preemptions": lambda one: f"{one.lost_share:.2%}",
    "preemptions": lambda one: f"{one.preemptions:,}",
    "most preemptions of one job": lambda one: f"{one.max_preemptions_of_one_job}",
}  # fmt: skip
