"""What the command line prints: pages for people, and one JSON document for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_jsonable_python
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from scheduler.api.forecasts import Explanation
from scheduler.api.health import Health, HolderDocument, LoopList, NodeHealth
from scheduler.api.jobs import EventPage, JobDocument
from scheduler.cli.follow import measures, printable
from scheduler.core.durations import exact_span
from scheduler.core.model import Status
from scheduler.core.visible import visible

_UNVERIFIED_AFTER_S = 30.0
_NAME_WIDTH = 10
_ROOM_FOR_WHOLE_IDS = 90
SHORT_ID = 8
"""Letters of an id that are shown where room is short; they name the job everywhere."""
COLOUR = {
    Status.PENDING: "yellow",
    Status.QUEUED: "cyan",
    Status.RUNNING: "blue",
    Status.PAUSED: "yellow",
    Status.COMPLETED: "green",
    Status.FAILED: "red",
    Status.CANCELLED: "magenta",
}
_NEXT = {
    Status.PENDING: "`scheduler force-start {id}` queues it now; `scheduler fail {id}` gives it up",
    Status.QUEUED: "`scheduler wait {id}` waits for its end; `scheduler cancel {id}` withdraws it",
    Status.RUNNING: "`scheduler logs -f {id}` shows its log; `scheduler pause {id}` saves and stops it",
    Status.PAUSED: "it holds nothing; `scheduler resume {id}` lets it go on; `scheduler cancel {id}` withdraws it",
    Status.FAILED: "`scheduler logs {id}` shows its log; `scheduler resume {id}` lets it go on from its last "
    "checkpoint; `scheduler restart {id}` starts it over",
    Status.CANCELLED: "`scheduler resume {id}` lets it go on; `scheduler restart {id}` starts it over",
}


def print_json(value: Any) -> None:
    """One document, and nothing else on stdout."""
    print(json.dumps(to_jsonable_python(value), indent=2, ensure_ascii=False))


def print_page(lines: Iterable[tuple[str, str | Text]]) -> None:
    """On a terminal what a value has too much for a line goes on below itself."""
    screen = console()
    for name, value in lines:
        text = value if isinstance(value, Text) else Text(value)
        is_wrapped = screen.is_terminal and "\n" not in text.plain
        rows = _wrapped(text, screen.width - _NAME_WIDTH) if is_wrapped else [text]
        for index, row in enumerate(rows):
            head = f"{'' if index else name:<{_NAME_WIDTH}}"
            screen.print(Text.assemble((head, "bold"), row), soft_wrap=True)


def _wrapped(text: Text, width: int) -> list[Text]:
    """At words alone: a path or an id that is cut by us could not be copied."""
    cuts, column = list[int](), 0
    for word in re.finditer(r"\S+\s*", text.plain):
        if column and column + cell_len(word.group().rstrip()) > width:
            cuts, column = [*cuts, word.start()], 0
        column += cell_len(word.group())
    return list(text.divide(cuts))


def job_page(
    job: JobDocument, now: datetime | None = None, *, explained: Explanation | None = None
) -> list[tuple[str, str | Text]]:
    """A job for people: where it stands, why, what to do next, and what backs it."""
    now = now or datetime.now(UTC)
    lines: list[tuple[str, str | Text | None]] = [
        ("job", job.job_id),
        ("name", _what(job)),
        ("status", _status(job)),
        ("overdue", "it has waited longer than it should" if job.overdue else None),
        ("why", printable(explained.message if explained else job.reason.message)),
        *(("next", step) for step in _next_steps(job, explained)),
        ("progress", " · ".join(measures(job.progress)) or None),
        ("saved", _checkpoint(job)),
        ("resumed", _resumed(job)),
        ("proof", _proof(job, now)),
        ("times", _times(job, now)),
        ("output", job.result.output_dir if job.result else None),
        ("note", printable("; ".join(job.result.notes)) if job.result else None),
        ("detail", Text(f"\n{visible(job.reason.detail)}") if job.reason.detail else None),
    ]
    return [(name, value) for name, value in lines if value]


def show_job(job: JobDocument | None, as_json: bool, explained: Explanation | None = None) -> None:
    if job and as_json:
        print_json(job)
    elif job:
        print_page(job_page(job, explained=explained))


def _next_steps(job: JobDocument, explained: Explanation | None) -> list[str]:
    if explained is None or not explained.next_steps:
        return [next_step(job)]
    screen = console()
    is_narrow = screen.is_terminal and screen.width < _ROOM_FOR_WHOLE_IDS
    short = job.job_id[:SHORT_ID] if is_narrow else job.job_id
    steps = (f"`{step.command.replace(job.job_id, short)}`: {step.why}" for step in explained.next_steps)
    return [printable(one) for one in steps]


def _checkpoint(job: JobDocument) -> str | None:
    """Where it would go on, and what that costs now."""
    saved = job.last_checkpoint
    if saved is None:
        return "none yet; a kill now would cost all of it" if job.unsaved_s is not None else None
    where = saved.checkpoint if saved.step is None else f"{saved.checkpoint}, step {saved.step}"
    cost = f"; a kill now would cost {exact_span(job.unsaved_s)}, a pause nothing" if job.unsaved_s else ""
    return printable(f"{where}{cost}")


def _resumed(job: JobDocument) -> str | None:
    if job.resumed is None:
        return None
    report = job.resumed
    where = (
        f"from checkpoint {report.checkpoint}, step {report.step}"
        if report.checkpoint
        else "from the beginning"
    )
    how = "; ".join(report.differs) or (
        "exactly as it was" if report.checkpoint else "no checkpoint was complete"
    )
    return printable(f"{where}: {how}" + "".join(f"; {one}" for one in report.skipped))


def next_step(job: JobDocument) -> str:
    if job.status is Status.COMPLETED:
        return "nothing; it is done"
    if job.status is Status.FAILED and not job.attempt:
        return f"it never ran, so there is no log; `scheduler force-start {job.job_id}` queues it again"
    if job.stop is not None:
        return f"it is being stopped; `scheduler status {job.job_id}` shows when it has"
    if job.reason.code == "held":
        return f"`scheduler resume {job.job_id}` lets it go; `scheduler fail {job.job_id}` gives it up"
    if job.status in (Status.FAILED, Status.CANCELLED) and job.last_checkpoint is None:
        return f"nothing was saved; `scheduler restart {job.job_id}` starts it over"
    return _NEXT[job.status].format(id=job.job_id)


def print_events(page: EventPage) -> None:
    for event in page.events:
        move = (
            f"{event.from_status or 'new'} -> {event.to_status}"
            if event.from_status != event.to_status
            else event.to_status
        )
        who = f"{event.by}: {event.reason.message}"
        print(printable(f"{event.at:%Y-%m-%d %H:%M:%S}  {event.kind:<10} {move:<22} {who}"))


def health_page(health: Health) -> list[tuple[str, str | Text]]:
    colour = "green" if health.status == "healthy" else "red"
    counts = health.registry.get("jobs") or {}
    return [
        ("status", Text(health.status, style=colour)),
        *(("problem", printable(problem)) for problem in health.problems),
        ("version", health.version),
        ("jobs", ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "none"),
        ("database", _database(health)),
        *(("node", _node(node)) for node in health.nodes),
        *(("loop", f"{name}: {_loop(loop)}") for name, loop in health.loops.items()),
    ]


def print_loops(loops: LoopList) -> None:
    for loop in loops.loops:
        print(f"{loop.name}: {printable(loop.description)}")
        required = loop.config_schema.get("required", [])
        for name, schema in loop.config_schema.get("properties", {}).items():
            need = "required" if name in required else f"default {json.dumps(schema.get('default'))}"
            print(f"  {name} ({need}): {printable(schema.get('description', ''))}")
    if loops.allowed:
        print(f"loops of your own: {', '.join(loops.allowed)}")


def console() -> Console:
    return Console(highlight=False)


def _what(job: JobDocument) -> str:
    parts = [job.name, f"loop {job.spec.loop}", str(job.spec.resources)]
    parts += [f"user {job.spec.user}"] if job.spec.user else []
    return printable(" · ".join(parts + ([f"project {job.spec.project}"] if job.spec.project else [])))


def _status(job: JobDocument) -> Text:
    text = Text(job.status.value, style=COLOUR[job.status])
    if job.doubt:
        text.append(f" ({job.doubt})", style="bold red")
    if job.queue_position:
        text.append(f", position {job.queue_position}", style="default")
    if job.status is Status.RUNNING:
        text.append(f", {job.phase or 'phase not known'}", style="default")
    return text.append(f", attempt {job.attempt}", style="default") if job.attempt else text


def _proof(job: JobDocument, now: datetime) -> Text:
    evidence = printable(job.evidence or "none given")
    if job.verified_at is None or not job.verified:
        return Text(evidence, style="yellow")
    age_s = (now - job.verified_at).total_seconds()
    if job.status.is_terminal or age_s < _UNVERIFIED_AFTER_S:
        return Text(f"{evidence} (checked {exact_span(age_s)} ago)")
    return Text(f"{evidence} (not verified for {exact_span(age_s)})", style="yellow")


def _times(job: JobDocument, now: datetime) -> str:
    parts = [f"submitted {exact_span((now - job.created_at).total_seconds())} ago"]
    if job.started_at:
        waited = (job.started_at - job.created_at).total_seconds()
        began = f"{exact_span((now - job.started_at).total_seconds())} ago"
        parts.append(f"first started after {exact_span(waited)}" if waited >= 1 else f"first started {began}")
        if job.finished_at:
            parts.append(f"took {exact_span((job.finished_at - job.started_at).total_seconds())}")
    return ", ".join(parts)


def _database(health: Health) -> str:
    database, waiting = health.database, health.unmirrored_writes
    if not database.configured:
        return printable(database.note or "none is configured")
    answer = {True: "answers", False: "does not answer", None: "not asked yet"}[database.ok]
    parts = [answer, f"{waiting:,} writes not mirrored yet" if waiting else "every write is mirrored"]
    parts += (
        [f"last success {database.last_success_at:%Y-%m-%d %H:%M:%S}"] if database.last_success_at else []
    )
    parts += [f"last error: {database.last_error}"] if database.last_error else []
    return printable(", ".join(parts) + (f"; {database.note}" if database.note else ""))


def _node(node: NodeHealth) -> str:
    free = f"{node.free_cpus:g} of {node.cpus:g} CPUs, {node.free_gpus:g} of {node.gpus:g} GPUs free" + (
        ", draining" if node.draining else ""
    )
    free += f", set aside: {node.set_aside.why}" if node.set_aside else ""
    holders = ", ".join(holder_words(holder) for holder in node.held_by)
    return printable(f"{node.name}: {free}" + (f"; held by {holders}" if holders else ""))


def holder_words(holder: HolderDocument) -> str:
    """Who holds a part of a node, and how much of it."""
    held = (("GPU", holder.gpus), ("CPU", holder.cpus))
    parts = [_counted(amount, what) for what, amount in held if amount] or [_counted(holder.ranks, "rank")]
    return f"{holder.name} of {holder.user or 'nobody named'} ({', '.join(parts)})"


def _counted(amount: float, what: str) -> str:
    return f"{amount:g} {what}" if amount == 1 else f"{amount:g} {what}s"


def _loop(loop: Any) -> str:
    words = f"every {loop.every_s:g} s, {loop.passes:,} times, {_counted(loop.errors, 'error')}"
    return words + (f", last error: {printable(loop.last_error)}" if loop.last_error else "")
