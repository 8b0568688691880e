"""What the Tab key offers.  A server that is slow or away offers nothing, and says nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import typer
from pydantic import ValidationError

from scheduler.api.jobs import JobDocument
from scheduler.cli.follow import printable
from scheduler.client import Client
from scheduler.core.model import Status
from scheduler.errors import SchedulerError

Offer = tuple[str, str]
"""What may stand there, and what it is."""
_PATIENCE_S = 0.5
_MOST_OFFERED = 50
_BUILT_IN_LOOPS = ("sft", "torch_ddp")


def jobs(*statuses: Status) -> Callable[[typer.Context, str], list[Offer]]:
    """Ids and names of jobs that are in one of *statuses*; of all when none is given."""

    def offers(ctx: typer.Context, incomplete: str) -> list[Offer]:
        filters: dict[str, Any] = {"status": statuses} if statuses else {}
        filters |= {"search": incomplete} if incomplete else {}
        found = _asked(ctx, lambda client: list(client.list_jobs(**filters, limit=_MOST_OFFERED)))
        return [offer for job in found for offer in _offers_of(job, incomplete)]

    return offers


def loops(ctx: typer.Context, incomplete: str) -> list[Offer]:
    found = _asked(ctx, lambda client: [(loop.name, loop.description) for loop in client.loops().loops])
    known = found or [(name, "") for name in _BUILT_IN_LOOPS]
    return [(name, printable(what)) for name, what in known if name.startswith(incomplete)]


def projects(ctx: typer.Context, incomplete: str) -> list[Offer]:
    found = _asked(ctx, lambda client: [project.name for project in client.projects().projects])
    return [(name, "") for name in found if name and name.isprintable() and name.startswith(incomplete)]


def recurring_jobs(ctx: typer.Context, incomplete: str) -> list[Offer]:
    found = _asked(ctx, lambda client: client.recurring_jobs().recurring_jobs)
    return [(one.name, one.words) for one in found if one.name.startswith(incomplete)]


def nodes(ctx: typer.Context, incomplete: str) -> list[Offer]:
    found = _asked(ctx, lambda client: [node.name for node in client.nodes().nodes])
    return [(name, "") for name in found if name.isprintable() and name.startswith(incomplete)]


def one_of_many(known: Iterable[str]) -> Callable[[str], list[str]]:
    """The last word of a list with commas."""
    words = tuple(known)

    def offers(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{word}" for word in words if word.startswith(last)]

    return offers


def one_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    words = tuple(known)
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


def _asked(ctx: typer.Context, ask: Callable[[Client], list[Any]]) -> list[Any]:
    try:
        with Client(ctx.params.get("url"), timeout_s=_PATIENCE_S, retry_s=0) as client:
            return ask(client)
    except (SchedulerError, ValidationError):
        return []  # in the middle of a line that is being typed there is no place for an error


def _offers_of(job: JobDocument, incomplete: str) -> list[Offer]:
    what = printable(f"{job.name}, {job.status}")
    if job.job_id.startswith(incomplete):
        return [(job.job_id, what)]
    is_one_word = job.name.isprintable() and not set(job.name) & set(" \t'\"\\$`:")
    return [(job.name, what)] if job.name.startswith(incomplete) and is_one_word else []
