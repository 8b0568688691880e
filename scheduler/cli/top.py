"""`scheduler top`: the queue, the running jobs and the nodes, live on the whole screen."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Event, Thread
from time import monotonic
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from scheduler.cli.keys import can_read_keys, next_keys, reading_keys
from scheduler.cli.listing import AWAY, fetch
from scheduler.cli.options import AsJson, Url
from scheduler.cli.top_view import Frame, Snapshot, page_lines, plain_lines, summary
from scheduler.cli.views import console, print_json
from scheduler.client import Client
from scheduler.core.model import Status
from scheduler.errors import SchedulerError

REDRAW_S = 0.5
_MOST_RUNNING = 500
_MOST_WAITING = 200
_PATIENCE_S = 10.0
_PLAIN_WIDTH = 200


def top(
    every_s: Annotated[float, typer.Option("--every", min=0.2, help="Seconds between two looks.")] = 2.0,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """The queue, the running jobs and the nodes with who holds them, live; printed once where nobody can press q."""
    client = Client(url, retry_s=0, timeout_s=_PATIENCE_S)
    first = look(client)
    screen = console()
    if as_json:
        print_json(_document(first))
    elif screen.is_terminal and not screen.is_dumb_terminal and can_read_keys():
        with suppress(KeyboardInterrupt):
            _show(screen, Feed(lambda: look(client), first, every_s))
    else:
        _print_once(first)


def look(client: Client) -> Snapshot:
    """Ask once for everything."""
    running = fetch(client, {"status": Status.RUNNING, "sort": "submitted", "limit": _MOST_RUNNING})
    waits = [Status.QUEUED, Status.PENDING]
    waiting = fetch(client, {"status": waits, "sort": "submitted", "limit": _MOST_WAITING})
    notes = [*running.notes, *waiting.notes]
    for what, found in (("run", running), ("wait", waiting)):
        if found.has_more:
            notes.append(f"of those that {what}, the {len(found.jobs)} that were submitted first are shown")
    return Snapshot(
        health=client.health(),
        running=running.jobs,
        waiting=sorted(waiting.jobs, key=lambda job: job.queue_position or sys.maxsize),
        counts=running.counts,
        notes=tuple(dict.fromkeys(notes)),
    )


class Feed:
    """Looks now and then, in a thread of its own, so that a slow answer keeps no key waiting."""

    def __init__(self, ask: Callable[[], Snapshot], first: Snapshot, every_s: float) -> None:
        self._ask, self._every_s = ask, every_s
        self.snapshot, self.seen_at_s = first, monotonic()
        self.trouble: str | None = None
        """Why there is nothing newer."""
        self.is_paused = False
        self._end = Event()
        # Nobody waits for its last answer: who presses q wants to be gone.
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()

    def _run(self) -> None:
        while not self._end.wait(self._every_s):
            if not self.is_paused:
                self.look_once()

    def look_once(self) -> None:
        try:
            found = self._ask()
        except AWAY as error:
            self.trouble = error.message
        except SchedulerError as error:
            self.trouble = f"refused: {error.message}"
        else:
            self.snapshot, self.seen_at_s, self.trouble = found, monotonic(), None


@dataclass(frozen=True, slots=True)
class Place:
    """Where the person is on the page, and whether it moves."""

    top: int = 0
    is_paused: bool = False
    is_over: bool = False

    def after(self, key: str, *, num_lines: int, room: int) -> Place:
        """Where *key* leads; one that means nothing leads nowhere."""
        last = max(0, num_lines - room)
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -room, "page down": room}
        match key:
            case "q" | "escape":
                return replace(self, is_over=True)
            case "p":
                return replace(self, is_paused=not self.is_paused)
            case "home" | "g":
                return replace(self, top=0)
            case "end" | "G":
                return replace(self, top=last)
            case _:
                return replace(self, top=max(0, min(last, self.top + steps.get(key, 0))))


def _show(screen: Console, feed: Feed) -> None:
    place = Place()
    with reading_keys(), feed, Live(console=screen, screen=True, auto_refresh=False) as live:
        while not place.is_over:
            live.update(_frame(feed, place), refresh=True)
            num_lines = len(page_lines(screen, feed.snapshot, screen.width))
            for key in next_keys(REDRAW_S):
                place = place.after(key, num_lines=num_lines, room=max(1, screen.height - 3))
            feed.is_paused = place.is_paused


def _frame(feed: Feed, place: Place) -> Frame:
    return Frame(
        snapshot=feed.snapshot,
        top=place.top,
        age_s=monotonic() - feed.seen_at_s,
        trouble=feed.trouble,
        is_paused=place.is_paused,
    )


def _print_once(snapshot: Snapshot) -> None:
    """Plain lines; in a pipe there is no edge near to cut them at."""
    screen = console()
    width = screen.width if screen.is_terminal else _PLAIN_WIDTH
    for line in (summary(snapshot), *snapshot.health.problems, *plain_lines(screen, snapshot, width)):
        print(line)


def _document(snapshot: Snapshot) -> dict[str, object]:
    return {
        "health": snapshot.health,
        "running": snapshot.running,
        "waiting": snapshot.waiting,
        "counts": snapshot.counts,
        "notes": snapshot.notes,
    }
