"""How the scheduler is, and which loops it can run."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from scheduler.api.base import Document
from scheduler.api.nodes import SetAsideDocument
from scheduler.core.model import Json


class ShutdownAnswer(Document):
    """The scheduler gets ready to be ended; /health says how many jobs still run."""

    running: int = Field(description="Jobs that run, each of which was told to give way.")
    grace_s: float = Field(description="How long each may take to save before it is ended, in seconds.")


class LoopDocument(Document):
    name: str
    description: str
    config_schema: dict[str, Any] = Field(description="JSON schema of the spec's `config` for this loop.")


class LoopList(Document):
    loops: list[LoopDocument]
    allowed: list[str] = Field(description="Patterns of users' own loops that the operator allows.")


class LoopHealth(Document):
    """One periodic loop of the scheduler."""

    every_s: float
    passes: int = 0
    errors: int = 0
    last_success_at: datetime | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None
    next_run_at: datetime | None = None


class HolderDocument(Document):
    """A running job's share of a node."""

    job_id: str
    name: str
    user: str
    ranks: int
    cpus: float
    gpus: float


class NodeHealth(Document):
    node_id: str
    name: str
    cpus: float
    gpus: float
    free_cpus: float
    free_gpus: float
    draining: bool = False
    set_aside: SetAsideDocument | None = Field(
        default=None, description="Nothing new starts on it, and why; null: jobs may."
    )
    labels: dict[str, str] = Field(default_factory=dict[str, str])
    held_by: list[HolderDocument] = Field(default_factory=list[HolderDocument])


class PoolHealth(Document):
    """Prepared processes: a hit starts a run in about a second, a miss costs a cold start and nothing else."""

    size: int
    ready: int
    hits: int
    misses: int
    note: str = ""


class DatabaseHealth(Document):
    """The mirror: how writing to the database, and reading from it, went."""

    configured: bool = Field(default=False, description="False: the journal on disk is the only store.")
    ok: bool | None = Field(
        default=None,
        description="Whether the last call succeeded; null when none was made, or none is configured.",
    )
    last_success_at: datetime | None = None
    last_error: str | None = Field(
        default=None, description="The newest error, in words; kept after a success."
    )
    incarnation: int | None = Field(
        default=None, description="Which life of the scheduler the database takes writes from."
    )
    note: str = Field(default="", description="A sentence for people.")


class Health(Document):
    status: str = Field(description="`healthy` or `degraded`.")
    problems: list[str] = Field(default_factory=list[str], description="Why it is degraded, in words.")
    service: str = "training-scheduler"
    version: str
    cluster: str = ""
    gpu_available: bool = False
    gpu_info: list[Json] = Field(default_factory=list[Json])
    registry: Json = Field(default_factory=dict, description="incarnation, pid, since, jobs by status.")
    database: DatabaseHealth = Field(default_factory=DatabaseHealth)
    loops: dict[str, LoopHealth] = Field(default_factory=dict[str, LoopHealth])
    unmirrored_writes: int = 0
    pruned_events: int = Field(
        default=0,
        description="Events deleted since the start, of jobs that ended more than SCHEDULER_KEEP_DAYS ago.",
    )
    notices_refused: int = Field(
        default=0, description="Notices that the webhook's receiver refuses; tried again."
    )
    notices_given_up: int = Field(default=0, description="Notices not sent again before the next start.")
    nodes: list[NodeHealth] = Field(default_factory=list[NodeHealth])
    pool: PoolHealth | None = None
