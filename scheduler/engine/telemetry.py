"""What the scheduler measures of itself: every name, unit and tag, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Kind(StrEnum):
    COUNTER = "counter"
    """Only grows; begins at 0 in each life of the scheduler."""
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One metric.  The values of its tags are few and known: no tag holds the id of a job or the name of a user."""

    name: str
    kind: Kind
    text: str
    tags: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds, of a histogram."""

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which Prometheus finds it: Ray puts `ray_` before each."""
        name = f"ray_{self.name}"
        match self.kind:
            case Kind.COUNTER:
                return (f"{name}_total",)
            case Kind.GAUGE:
                return (name,)
            case Kind.HISTOGRAM:
                return (f"{name}_bucket", f"{name}_sum", f"{name}_count")


class Telemetry(Protocol):
    """Takes numbers and keeps them for whoever comes to fetch them.  No call waits or raises."""

    def add(self, measure: Measure, by: float = 1.0, **tags: str) -> None:
        """Count on.  0 counts nothing, but shows the series: an increase from nothing is not seen as one."""
        ...

    def set(self, measure: Measure, value: float, **tags: str) -> None: ...

    def observe(self, measure: Measure, value: float, **tags: str) -> None: ...


class NoTelemetry:
    """The telemetry of a scheduler that nobody measures."""

    def add(self, measure: Measure, by: float = 1.0, **tags: str) -> None:
        pass

    def set(self, measure: Measure, value: float, **tags: str) -> None:
        pass

    def observe(self, measure: Measure, value: float, **tags: str) -> None:
        pass


def _counter(name: str, text: str, *tags: str) -> Measure:
    return Measure(name=f"scheduler_{name}", kind=Kind.COUNTER, text=text, tags=tags)


def _gauge(name: str, text: str, *tags: str) -> Measure:
    return Measure(name=f"scheduler_{name}", kind=Kind.GAUGE, text=text, tags=tags)


def _seconds(name: str, text: str, buckets: tuple[float, ...], *tags: str) -> Measure:
    name = f"scheduler_{name}_seconds"
    return Measure(name=name, kind=Kind.HISTOGRAM, text=text, tags=tags, buckets=buckets)


_SHORT_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_LONG_S = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0, 259200.0)

LOOKED_AT = 1000
"""Of the jobs that wait: those whose turn it is next."""
_OF_THE_LINE = f"of the next {LOOKED_AT:,} in the queue, without those that are held"

# Jobs and their line
JOBS = _gauge("jobs", "Jobs in each status, of all times.", "status")
JOBS_ACCEPTED = _counter("jobs_accepted", "Jobs taken in: submitted, or found in the database.")
QUEUE_OLDEST_WAIT = _gauge(
    "queue_oldest_wait_seconds", f"How long the job has waited that waits longest; {_OF_THE_LINE}."
)
JOBS_OVERDUE = _gauge(
    "jobs_overdue", f"Jobs that have waited for more than SCHEDULER_OVERDUE_AFTER_S; {_OF_THE_LINE}."
)
QUEUED_GPUS = _gauge("queued_gpus", f"GPUs that the waiting jobs need to start; {_OF_THE_LINE}.")
QUEUE_WAIT = _seconds("queue_wait", "From entering the queue to getting nodes.", _LONG_S)

# Runs
START = _seconds("start", "From getting nodes to the first step, of runs that were seen there.", _SHORT_S)
START_PHASE = _seconds("start_phase", "How long a run stood in each phase of its start.", _SHORT_S, "phase")
RUN_STARTS = _counter("run_starts", "Runs by how they started: warm or cold.", "start")
RUNS_ENDED = _counter("runs_ended", "Runs by how they ended, and who is answerable.", "ending", "cause")
RUN_FAILURES = _counter("run_failures", "Runs that failed or were lost.", "cause", "code")
PREPARED_RUNS = _gauge("prepared_runs", "Runs that could start warm now.")

# The cluster
NODES = _gauge(
    "nodes", "Live nodes that take new work, and those that are being drained or set aside.", "state"
)
CPUS = _gauge("cpus", "CPUs: held by jobs, free, or taken by something else on this Ray.", "state")
GPUS = _gauge("gpus", "GPUs: held by jobs, free, or taken by something else on this Ray.", "state")

# The scheduler itself
PROBLEMS = _gauge("problems", "What /health lists under `problems`; 0 is well.")
OUTBOX_ROWS = _gauge("outbox_rows", "Changes that the database has not taken yet.")
MIRROR_LAG = _gauge("mirror_lag_seconds", "Age of the oldest change that the database has not taken yet.")
REPAIRS = _counter("repairs", "What the reconciler repaired.")
EVENTS_PRUNED = _counter("events_pruned", "Events of jobs that ended long ago, deleted in the journal.")
NOTICES_REFUSED = _gauge(
    "notices_refused", "Notices that the webhook's receiver does not take, by what becomes of them.", "state"
)
SHADOW_DIFFERENCES = _counter(
    "shadow_differences", "Where the policy in shadow would have decided otherwise.", "kind"
)
SHADOW_FAULTS = _counter("shadow_faults", "How often the policy in shadow failed.")
BACKGROUND_ERRORS = _counter("background_errors", "Background tasks that failed.")
LOOP_PASSES = _counter("loop_passes", "Passes of each periodic loop.", "loop")
LOOP_ERRORS = _counter("loop_errors", "Passes that failed.", "loop")
LOOP_INTERVAL = _gauge("loop_interval_seconds", "How often a loop runs when all is well.", "loop")
LOOP_LAST_SUCCESS = _gauge(
    "loop_last_success_timestamp_seconds", "When the last pass succeeded, in seconds since the epoch.", "loop"
)

ALL: tuple[Measure, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Measure))
