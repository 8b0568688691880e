"""`scheduler logs`: the log of one rank or of all, as it is or as it grows."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import typer

from scheduler.api.base import DoubtNotice
from scheduler.api.logs import AttemptNotice, EndNotice, LogChunk, LogEvent, LogLines, WaitNotice
from scheduler.cli.follow import printable
from scheduler.cli.options import AsJson, JobId, Url, connect, watching
from scheduler.cli.views import print_json
from scheduler.client.connection import Where
from scheduler.core.visible import visible_log
from scheduler.errors import InvalidRequest

_LINE_START = re.compile(r"^(?!\Z)", re.MULTILINE)


def logs(
    job_id: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended, retries included.")
    ] = False,
    rank: Annotated[str, typer.Option(metavar="N|all", help="Which process of the gang.")] = "0",
    attempt: Annotated[
        int | None, typer.Option(min=1, help="Which run of the job.  Default: the newest.")
    ] = None,
    tail_bytes: Annotated[int | None, typer.Option(min=1, help="Begin so many bytes before the end.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """The log of one rank, or of all, each line with its rank then; what else happens is on stderr."""
    where: Where = {"rank": _rank(rank), "attempt": attempt, "tail_bytes": tail_bytes}
    client = connect(url)
    events = client.log_events(job_id, **where) if follow else client.log_chunks(job_id, **where)
    with watching(job_id):
        if as_json:
            print_json(log_document(job_id, where["rank"], events))
        else:
            print_log(events, with_ranks=where["rank"] == "all")


def print_log(events: Iterable[LogEvent], *, with_ranks: bool) -> None:
    """Lines to stdout as they come, *with_ranks* each after the rank that printed it; the rest to stderr."""
    last: LogLines | None = None
    for event in events:
        if isinstance(event, LogLines):
            text = _with_rank(event, last) if with_ranks else event.text
            sys.stdout.write(visible_log(text) if sys.stdout.isatty() else text)
            sys.stdout.flush()
            last = event if event.text else last
        elif notice := _notice(event):
            print(f"-- {printable(notice)}", file=sys.stderr)


def log_document(job_id: str, rank: int | str, events: Iterable[LogEvent]) -> dict[str, Any]:
    """All that *events* hold, as one document; of more than one rank, by rank."""
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
            what = "the stream failed" if event.over == "stream" else f"the job is {event.status}"
            return f"{what}: {event.reason.message}"
        case _:
            return None


def _rank(text: str) -> int | Literal["all"]:
    if text == "all":
        return "all"
    if not text.isdecimal():
        raise InvalidRequest(f"--rank {text}: give the number of a rank, or `all`")
    return int(text)
