"""`scheduler reconcile` and `repairs`: what was repaired between registry, runs and database."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from scheduler.api.repairs import ReconcileAnswer, RepairDocument
from scheduler.cli.follow import printable
from scheduler.cli.options import AsJson, Url, connect
from scheduler.cli.views import print_json


def reconcile(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be repaired.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Compare registry, runs and database now, and repair what differs."""
    answer = connect(url).reconcile(dry_run)
    if as_json:
        print_json(answer)
        return
    for repair in answer.repairs:
        _print_repair(repair)
    print(_summary(answer), file=sys.stderr)


def repairs(
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """What was repaired, newest first: seen in the database, seen in reality, decided, and why."""
    found = list(connect(url).repairs(limit))
    if as_json:
        print_json({"repairs": found})
        return
    for repair in found:
        _print_repair(repair)
    if not found:
        print("nothing had to be repaired", file=sys.stderr)


def _summary(answer: ReconcileAnswer) -> str:
    count = len(answer.repairs)
    did = "would be" if answer.dry_run else "was" if count == 1 else "were"
    what = f"{count} {'thing' if count == 1 else 'things'} {did} repaired" if count else "nothing to repair"
    if answer.database != "compared":
        return printable(f"{what}; database: {answer.database}")
    return f"{what}; {answer.rows_compared:,} active rows of the database were compared"


def _print_repair(repair: RepairDocument) -> None:
    seen = f"the database had {repair.in_database}; {repair.in_reality}"
    line = f"{repair.at:%Y-%m-%d %H:%M:%S}  {repair.job_id}  {repair.by}: {repair.decided} ({repair.why}; {seen})"
    print(printable(line))
