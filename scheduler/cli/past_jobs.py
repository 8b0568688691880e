"""The jobs of one's own journal, as a trace."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from scheduler.cli.server import read_settings
from scheduler.cli.trace_file import as_words
from scheduler.core.contender import Share
from scheduler.core.history import History, LeftOut, history, seen_nodes
from scheduler.errors import InvalidRequest

_SPAN = re.compile(r"(\d{1,6}(?:\.\d+)?)([hdw])")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True)
class OwnPast:
    history: History
    shares: Mapping[str, Share]
    """Of the projects, as they are now."""


def read_past(span: str, journal: str | None) -> OwnPast:
    """The jobs that were submitted within *span*, as `30d`.  A scheduler may be at work on the journal."""
    from scheduler.adapters.journal.history import JournalHistory

    until = datetime.now(UTC)
    since = _before(until, span)
    path = Path(journal) if journal else read_settings().state_dir / "journal.db"
    with JournalHistory.of(path) as opened:
        past = history(opened.jobs(since, until), since, until)
        shares = opened.shares()
    if not past.entries:
        raise InvalidRequest(f"{path} has no job of the last {span} that ran and ended{_but(past.left_out)}")
    return OwnPast(past, shares)


def _before(until: datetime, span: str) -> datetime:
    found = _SPAN.fullmatch(span.strip())
    if not found or not float(found[1]):
        raise InvalidRequest(f"--history {span}: write it as 30d, 12h or 4w")
    try:
        return until - timedelta(**{_UNITS[found[2]]: float(found[1])})
    except OverflowError:
        raise InvalidRequest(f"--history {span}: is longer than time goes back") from None


def sentence(span: str, past: History) -> str:
    """How many jobs there are, and which are not among them."""
    jobs = "1 job" if len(past.entries) == 1 else f"{len(past.entries):,} jobs"
    return f"{jobs} of the last {span}{_but(past.left_out)}"


def _but(left_out: Counter[LeftOut]) -> str:
    if not left_out.total():
        return ""
    parts = ", ".join(f"{left_out[why]:,} {why}" for why in LeftOut if left_out[why])
    return f"; {left_out.total():,} left out: {parts}"


def nodes_seen(past: History) -> tuple[str, str]:
    """The nodes that the runs show, as `--nodes` takes them; and how they were found."""
    seen = seen_nodes(past.holds)
    words = as_words(seen.largest)
    return words, (
        f"nodes {words}: the most that had runs in the same stretch of time, of {seen.num_seen:,} seen in all; each "
        "as large as what runs held of it at once. Give --nodes if there are more, or larger ones"
    )
