"""How the engine stands at one moment: what `/health` and the metrics read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from scheduler.api.health import LoopHealth
from scheduler.api.shadow import ShadowDocument
from scheduler.core.bad_nodes import SetAside
from scheduler.core.model import Job, Node, Status
from scheduler.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseState:
    """What the tasks that talk to the database have seen of it."""

    incarnation: int | None
    """None until it has been reached for the first time."""
    tasks: tuple[LoopHealth, ...]
    is_failing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineState:
    at: datetime
    settings: Settings
    incarnation: int
    jobs: Mapping[Status, int]
    """Of all times, in each status."""
    running: Sequence[Job]
    next_queued: Sequence[Job]
    """The first of the queue."""
    nodes: tuple[Node, ...]
    aside: Mapping[str, SetAside]
    """Nodes that are set aside, by name."""
    tasks: tuple[tuple[str, LoopHealth], ...]
    """The periodic tasks, by name."""
    database: DatabaseState | None
    """None: no database is set."""
    unmirrored: int
    """Changes that the database has not taken yet."""
    oldest_unmirrored_at: datetime | None
    repairs: int
    """Ever made."""
    pruned_events: int
    notices_refused: int
    notices_given_up: int
    background_errors: int
    shadow: ShadowDocument | None
    """None: no policy is asked in shadow."""
    problems: Sequence[str]
    """What is not as it must be, in words; empty when all is well."""
