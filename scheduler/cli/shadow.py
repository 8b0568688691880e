"""`scheduler policy shadow`: where the policy in shadow would have decided otherwise."""

from __future__ import annotations

import sys

from rich.table import Table
from rich.text import Text

from scheduler.api.shadow import ShadowDifference, ShadowDocument
from scheduler.cli.columns import one_line
from scheduler.cli.follow import printable
from scheduler.cli.options import AsJson, Url, connect
from scheduler.cli.views import SHORT_ID, console, print_json
from scheduler.errors import NotReady


def policy_shadow(url: Url = None, as_json: AsJson = False) -> None:
    """Where the policy of SCHEDULER_POLICY_SHADOW would have decided otherwise; it decides nothing."""
    found = connect(url).queue().shadow
    if found is None:
        raise NotReady(
            "no policy is asked in shadow: set SCHEDULER_POLICY_SHADOW, for example to preempt=class or fifo, and "
            "restart with `scheduler up --replace`"
        )
    if as_json:
        print_json(found)
        return
    _print(found)


def _print(found: ShadowDocument) -> None:
    """A table on a terminal; elsewhere lines with tabs between columns, nothing shortened."""
    screen = console()
    if screen.is_terminal:
        screen.print(_table(found))
    else:
        for one in found.recent:
            print("\t".join(_line(one)))
    for note in _notes(found):
        print(note, file=sys.stderr)


def _notes(found: ShadowDocument) -> list[str]:
    counts = ", ".join(f"{kind} {count:,}" for kind, count in found.differences.items())
    asked = f"{found.policy} was asked {found.passes:,} times since {_moment(found)}, and passed over {found.skipped:,}"
    return [f"{asked}; differences: {counts}", *([found.problem] if found.problem else [])]


def _moment(found: ShadowDocument) -> str:
    return found.since.strftime("%Y-%m-%d %H:%M UTC")


def _table(found: ShadowDocument) -> Table:
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("SINCE", "UNTIL", "KIND", "JOB", "NAME"):
        drawn.add_column(title, no_wrap=True, overflow="ellipsis", max_width=24)
    drawn.add_column(one_line("IT"))
    for one in found.recent:
        since, until, kind, job_id, name, message = _line(one)
        short = since[5:19], until[5:19] or "now", kind, job_id[:SHORT_ID], name
        drawn.add_row(*map(Text, short), one_line(message))
    return drawn


def _line(one: ShadowDifference) -> list[str]:
    until = one.until.isoformat(sep=" ", timespec="seconds") if one.until else ""
    since = one.at.isoformat(sep=" ", timespec="seconds")
    return [since, until, one.kind, one.job_id, printable(one.name), printable(one.message)]
