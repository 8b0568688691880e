"""What the command line prints: pages for people, one JSON document for programs, errors to stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.text import Text

from scheduler.core.model import Status
from scheduler.documents import (
    AttemptNotice,
    DoubtNotice,
    EndNotice,
    EventPage,
    Health,
    JobDocument,
    LogChunk,
    LogEvent,
    LogLines,
    LoopList,
    ProblemDocument,
    ProblemField,
    WaitNotice,
)
from scheduler.errors import (
    BodyTooLarge,
    CheckpointNotFound,
    InvalidRequest,
    InvalidSpec,
    JobNotFound,
    NotAllowed,
    SchedulerError,
    Unauthorized,
    WaitTimedOut,
)
from scheduler.follow import duration, measures, printable

_UNVERIFIED_AFTER_S = 30.0
_LINE_START = re.compile(r"^(?!\Z)", re.MULTILINE)
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
_EXIT_CODES: tuple[tuple[type[SchedulerError], int], ...] = (
    (InvalidSpec, 2),
    (InvalidRequest, 2),
    (BodyTooLarge, 2),
    (JobNotFound, 3),
    (CheckpointNotFound, 3),
    (NotAllowed, 5),
    (WaitTimedOut, 124),
)
_REMEDY: tuple[tuple[type[SchedulerError], str], ...] = (
    (InvalidSpec, "mend it and submit again; `scheduler loops` shows what each loop takes"),
    (Unauthorized, "set SCHEDULER_TOKEN to the token of the scheduler"),
)


def exit_code(error: SchedulerError) -> int:
    for kind, code in _EXIT_CODES:
        if isinstance(error, kind):
            return code
    return 4 if error.http_status == 503 else 1


def print_error(error: SchedulerError, *, as_json: bool) -> None:
    """To stderr: what was wrong, which fields, what to do next."""
    if as_json:
        fields = [ProblemField(field=one.field, message=one.message) for one in error.problems]
        document = ProblemDocument(
            title=type(error).__name__,
            status=error.http_status,
            detail=error.message,
            code=error.code,
            errors=fields,
        )
        print(document.model_dump_json(indent=2), file=sys.stderr)
        return
    # With fields, the sentence would only say them all again on one line.
    print(f"error: {error.message.partition('; ')[0] if error.problems else error.message}", file=sys.stderr)
    for problem in error.problems:
        print(f"  {problem}", file=sys.stderr)
    for kind, remedy in _REMEDY:
        if isinstance(error, kind):
            print(f"next: {remedy}", file=sys.stderr)


def print_json(value: Any) -> None:
    """One document, and nothing else on stdout."""
    print(json.dumps(to_jsonable_python(value), indent=2, ensure_ascii=False))


def print_page(lines: Iterable[tuple[str, str | Text]]) -> None:
    screen = console()
    for name, value in lines:
        screen.print(Text.assemble((f"{name:<10}", "bold"), value), soft_wrap=True)


def job_page(job: JobDocument, now: datetime | None = None) -> list[tuple[str, str | Text]]:
    """A job for people: where it stands, why, what to do next, and what backs it."""
    now = now or datetime.now(UTC)
    lines: list[tuple[str, str | Text | None]] = [
        ("job", job.job_id),
        ("name", _what(job)),
        ("status", _status(job)),
        ("why", printable(job.reason.message)),
        ("next", next_step(job)),
        ("progress", " · ".join(measures(job.progress)) or None),
        ("saved", _checkpoint(job)),
        ("resumed", _resumed(job)),
        ("proof", _proof(job, now)),
        ("times", _times(job, now)),
        ("output", job.result.output_dir if job.result else None),
        ("detail", Text(f"\n{job.reason.detail}") if job.reason.detail else None),
    ]
    return [(name, value) for name, value in lines if value]


def show_job(job: JobDocument | None, as_json: bool) -> None:
    if job and as_json:
        print_json(job)
    elif job:
        print_page(job_page(job))


def _checkpoint(job: JobDocument) -> str | None:
    """Where it would go on, and what that costs now."""
    saved = job.last_checkpoint
    if saved is None:
        return "none yet; a kill now would cost all of it" if job.unsaved_s is not None else None
    where = saved.checkpoint if saved.step is None else f"{saved.checkpoint}, step {saved.step}"
    cost = f"; a kill now would cost {duration(job.unsaved_s)}, a pause nothing" if job.unsaved_s else ""
    return printable(f"{where}{cost}")


def _resumed(job: JobDocument) -> str | None:
    if job.resumed is None:
        return None
    said = job.resumed
    where = (
        f"from checkpoint {said.checkpoint}, step {said.step}" if said.checkpoint else "from the beginning"
    )
    how = "; ".join(said.differs) or ("exactly as it was" if said.checkpoint else "no checkpoint was whole")
    return printable(f"{where}: {how}" + "".join(f"; {one}" for one in said.skipped))


def next_step(job: JobDocument) -> str:
    if job.status is Status.COMPLETED:
        return "nothing; it is done"
    if job.status is Status.FAILED and not job.attempt:
        return f"it never ran, so there is no log; `scheduler force-start {job.job_id}` queues it again"
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


def print_log(events: Iterable[LogEvent], *, with_ranks: bool) -> None:
    """Lines to stdout as they come, *with_ranks* each after the rank that printed it; the rest to stderr."""
    last: LogLines | None = None
    for event in events:
        if isinstance(event, LogLines):
            sys.stdout.write(_with_rank(event, last) if with_ranks else event.text)
            sys.stdout.flush()
            last = event if event.text else last
        elif said := _notice(event):
            print(f"-- {printable(said)}", file=sys.stderr)


def log_document(job_id: str, rank: int | str, events: Iterable[LogEvent]) -> dict[str, Any]:
    """All that *events* tell, as one document; of more than one rank, by rank."""
    texts: dict[int, str] = {}
    attempt, ended = None, False
    for event in events:
        if isinstance(event, LogLines):
            texts[event.rank] = texts.get(event.rank, "") + event.text
        if isinstance(event, LogLines | AttemptNotice):
            attempt = event.attempt
        ended = isinstance(event, EndNotice) or (isinstance(event, LogChunk) and event.ended)
    text = {str(one): texts[one] for one in sorted(texts)} if rank == "all" else "".join(texts.values())
    return {"job_id": job_id, "rank": rank, "attempt": attempt, "text": text, "ended": ended}


def _with_rank(lines: LogLines, before: LogLines | None) -> str:
    """*lines* as they follow on *before*: a line that was cut goes on, unless another rank cuts in."""
    mark = f"[{lines.rank}] "
    marked = _LINE_START.sub(mark, lines.text)
    if before is None or before.text.endswith("\n"):
        return marked
    goes_on = (before.rank, before.attempt) == (lines.rank, lines.attempt)
    return marked.removeprefix(mark) if goes_on else f"\n{marked}"


def _notice(event: LogEvent) -> str | None:
    match event:
        case AttemptNotice(state="began"):
            return f"attempt {event.attempt} began" if event.attempt > 1 else None
        case AttemptNotice():
            why = f": {event.reason.message}" if event.reason else ""
            return f"attempt {event.attempt} is over{why}"
        case WaitNotice():
            return f"{event.status}: {event.reason.message}"
        case DoubtNotice():
            return event.message or "the registry answers again"
        case EndNotice():
            what = "no more can be told" if event.over == "stream" else f"the job is {event.status}"
            return f"{what}: {event.reason.message}"
        case _:
            return None


def health_page(health: Health) -> list[tuple[str, str | Text]]:
    colour = "green" if health.status == "healthy" else "red"
    counts = health.registry.get("jobs") or {}
    return [
        ("status", Text(health.status, style=colour)),
        *(("problem", printable(problem)) for problem in health.problems),
        ("version", health.version),
        ("jobs", ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "none"),
        ("database", _database(health)),
        *(
            ("node", f"{n.name}: {n.free_cpus:g} of {n.cpus:g} CPUs, {n.free_gpus:g} of {n.gpus:g} GPUs free")
            for n in health.nodes
        ),
        *((f"{'loop'}", f"{name}: {_loop(loop)}") for name, loop in health.loops.items()),
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
        return Text(f"{evidence} (checked {duration(age_s)} ago)")
    return Text(f"{evidence} (not verified for {duration(age_s)})", style="yellow")


def _times(job: JobDocument, now: datetime) -> str:
    parts = [f"submitted {duration((now - job.created_at).total_seconds())} ago"]
    if job.started_at:
        waited = (job.started_at - job.created_at).total_seconds()
        ran = ((job.finished_at or now) - job.started_at).total_seconds()
        parts += [
            f"started after {duration(waited)}",
            f"{'took' if job.finished_at else 'since'} {duration(ran)}",
        ]
    return ", ".join(parts)


def _database(health: Health) -> str:
    database, waiting = health.database, health.unmirrored_writes
    if not database.configured:
        return printable(database.note or "none is configured")
    said = {True: "answers", False: "does not answer", None: "not asked yet"}[database.ok]
    parts = [said, f"{waiting:,} writes not mirrored yet" if waiting else "every write is mirrored"]
    parts += (
        [f"last success {database.last_success_at:%Y-%m-%d %H:%M:%S}"] if database.last_success_at else []
    )
    parts += [f"last error: {database.last_error}"] if database.last_error else []
    return printable(", ".join(parts) + (f"; {database.note}" if database.note else ""))


def _loop(loop: Any) -> str:
    words = f"every {loop.every_s:g} s, {loop.passes} passes, {loop.errors} errors"
    return words + (f", last error: {printable(loop.last_error)}" if loop.last_error else "")
