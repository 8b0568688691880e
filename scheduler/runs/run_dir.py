"""What a run leaves on disk: one folder for each run, on the storage that every node sees.

<storage>/<job_id>/
    run-<fence>/
        started.json          the run's actor was here, and the whole job: for a scheduler that lost its journal
        resumed.json          the checkpoint it goes on from, and what was found when it was verified
        controller            the actor id of Ray Train's controller
        rank-<n>.json         the process of each rank: node, pid, when it was created
        rank-<n>.log          all it printed
        rank-<n>.error.json   the exception that left its loop
        rank-<n>.exit.json    the exit code with which its loop ended the process
        rank-<n>.returned.json  its loop returned, and what: without that of every rank nothing is completed
        progress.jsonl        what rank 0 says of itself, or reports to Ray Train
        saved.jsonl           the checkpoints it completed
        stop                  exists when the run should save and return
        ended.json            why the scheduler, or the operator, ended it
        output/               the final adapter or model
        final.json            how it ended; written last, by rename

Checkpoints lie in Ray Train's folders, `<checkpoint url>/<job_id>/train-<job>-<fence>/`: see checkpoint_store.py.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NotRequired, TypeVar

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from scheduler.core.model import (
    JOB,
    Fence,
    Job,
    JobId,
    Json,
    NodeId,
    Outcome,
    Reason,
    Resumption,
    Saved,
)
from scheduler.core.run_end import Returned
from scheduler.ports import LogPart, RankProcess
from scheduler.runs.progress import ProgressReader
from scheduler.runs.rank_log import read_part
from scheduler.runs.records import as_record, read_json, read_lines, read_record, write_json
from scheduler.runs.resume_report import take_control_words

log = logging.getLogger(__name__)

STARTED_VERSION = 1
"""Of the form in which a run keeps its job; other releases know by it whether they can read it."""

T = TypeVar("T")

_RETURNED: TypeAdapter[Returned] = TypeAdapter(Returned)
_OUTCOME: TypeAdapter[Outcome] = TypeAdapter(Outcome)
_RANK: TypeAdapter[RankProcess] = TypeAdapter(RankProcess)
_RESUMED: TypeAdapter[Resumption] = TypeAdapter(Resumption)
_SAVED: TypeAdapter[Saved] = TypeAdapter(Saved)
_REASON: TypeAdapter[Reason] = TypeAdapter(Reason)


class RankExit(TypedDict):
    """A loop ended its process with this exit code."""

    rank: int
    code: int


class RankError(TypedDict):
    """An exception that left a loop, as `plain_error` has it.  `at` is in seconds since the epoch."""

    rank: int
    at: float
    type: str
    module: NotRequired[str]
    message: str
    traceback: str


_EXIT: TypeAdapter[RankExit] = TypeAdapter(RankExit)
_ERROR: TypeAdapter[RankError] = TypeAdapter(RankError)


@dataclass(frozen=True, slots=True)
class RunDir:
    path: Path

    @classmethod
    def of(cls, storage: Path, job_id: JobId, fence: Fence) -> RunDir:
        return cls(storage / job_id / f"run-{fence}")

    @property
    def progress_file(self) -> Path:
        return self.path / "progress.jsonl"

    @property
    def stop_file(self) -> Path:
        return self.path / "stop"

    @property
    def output_dir(self) -> Path:
        return self.path / "output"

    def output(self) -> str | None:
        """Where the final adapter or model is, if the loop left one."""
        return str(self.output_dir) if self.output_dir.is_dir() else None

    def log_file(self, rank: int) -> Path:
        return self.path / f"rank-{rank}.log"

    @property
    def controller_file(self) -> Path:
        return self.path / "controller"

    def controller(self) -> str | None:
        """The actor id of Ray Train's controller, in hexadecimal; None before it was there."""
        try:
            return self.controller_file.read_text() or None
        except FileNotFoundError:
            return None

    @property
    def saved_file(self) -> Path:
        return self.path / "saved.jsonl"

    def begin(self, node_id: str, job: Job | None = None) -> None:
        """Readable by its owner alone, as the journal is: a spec may hold what only its user should see."""
        self.path.mkdir(parents=True, exist_ok=True)
        started: Json = {"pid": os.getpid(), "node_id": node_id}
        if job:
            started |= {"version": STARTED_VERSION, "job": JOB.dump_python(job, mode="json")}
        write_json(self.path / "started.json", started, mode=0o600)

    def job(self) -> Job | None:
        """As it was when this run got its nodes.  None: the run was begun by a release that did not keep it, or by one
        that this one cannot read."""
        try:
            row = read_json(self.path / "started.json")
            if not isinstance(row, dict) or row.get("version") != STARTED_VERSION:
                return None
            return JOB.validate_python(row["job"])
        except (KeyError, ValidationError, OSError) as error:
            log.error("the job in %s cannot be read: %s", self.path / "started.json", error)
            return None

    def node(self) -> NodeId | None:
        """Where the run's actor is, or was."""
        row = read_json(self.path / "started.json")
        return NodeId(str(row["node_id"])) if isinstance(row, dict) and "node_id" in row else None

    def has_begun(self) -> bool:
        return (self.path / "started.json").exists()

    def write_rank(self, process: RankProcess) -> None:
        write_json(self.path / f"rank-{process.rank}.json", _RANK.dump_python(process))

    def ranks(self) -> tuple[RankProcess, ...]:
        return tuple(self._of_ranks("", _RANK))

    def write_returned(self, returned: Returned) -> None:
        write_json(self.path / f"rank-{returned.rank}.returned.json", _RETURNED.dump_python(returned))

    def returned(self) -> tuple[Returned, ...]:
        return tuple(self._of_ranks(".returned", _RETURNED))

    def write_exit(self, rank: int, code: int) -> None:
        write_json(self.path / f"rank-{rank}.exit.json", {"rank": rank, "code": code})

    def exits(self) -> dict[int, int]:
        """The exit codes with which loops ended their processes, by rank."""
        return {one["rank"]: one["code"] for one in self._of_ranks(".exit", _EXIT)}

    def _of_ranks(self, kind: str, adapter: TypeAdapter[T]) -> Iterator[T]:
        """What the ranks left in files `rank-<n><kind>.json`, as far as it can be read."""
        name = re.compile(rf"rank-\d+{re.escape(kind)}\.json")
        for path in sorted(self.path.glob("rank-*.json")):
            if name.fullmatch(path.name) and (one := read_record(path, adapter)) is not None:
                yield one

    def write_error(self, rank: int, error: Json) -> None:
        write_json(self.path / f"rank-{rank}.error.json", error)

    def errors(self) -> list[RankError]:
        """The exceptions that left the loop, by rank: `rank`, `at`, and what `plain_error` makes of each."""
        return list(self._of_ranks(".error", _ERROR))

    def write_resumed(self, resumed: Resumption) -> None:
        write_json(self.path / "resumed.json", _RESUMED.dump_python(resumed, mode="json"))

    def resumed(self) -> Resumption | None:
        """The checkpoint this run goes on from, as far as its actor checked it; None: from the beginning."""
        return read_record(self.path / "resumed.json", _RESUMED)

    def saved(self) -> Saved | None:
        """The newest checkpoint that this run completed."""
        for line in reversed(read_lines(self.saved_file)):
            if "checkpoint" in line and (saved := as_record(line, _SAVED, self.saved_file)):
                return saved
        return None

    def write_ended(self, reason: Reason) -> None:
        """LoopReport before the run is ended by force, so that nobody takes it for an accident."""
        write_json(self.path / "ended.json", _REASON.dump_python(reason, mode="json"))

    def ended(self) -> Reason | None:
        return read_record(self.path / "ended.json", _REASON)

    def account(self, outcome: Outcome) -> Outcome:
        """*outcome* with what the run left behind: progress, where it had begun, what it saved."""
        reader = ProgressReader(self.progress_file)
        progress, said = take_control_words(reader.reported())
        resumed = said.complete(self.resumed(), has_stepped=reader.stepped_at_s is not None)
        return replace(outcome, progress=progress, resumed=resumed, saved=self.saved())

    def has_nothing_to_save(self) -> bool:
        """It has not made a step of its own, as far as it says; a loop that says nothing may have."""
        reader = ProgressReader(self.progress_file)
        said = reader.reported()
        if reader.phase is None:
            return True  # no rank has entered the loop
        return "step" in (said or {}) and reader.stepped_at_s is None

    def log_tails(self, limit: int) -> dict[str, str]:
        """The last *limit* bytes of each rank's log, by the number of the rank."""
        ranks = sorted(int(path.stem.removeprefix("rank-")) for path in self.path.glob("rank-*.log"))
        return {str(rank): self.read_log(rank, -limit, limit).text for rank in ranks}

    def write_final(self, outcome: Outcome) -> None:
        write_json(self.path / "final.json", _OUTCOME.dump_python(outcome, mode="json"))

    def final(self) -> Outcome | None:
        return read_record(self.path / "final.json", _OUTCOME)

    def read_log(self, rank: int, offset: int, limit: int) -> LogPart:
        return read_part(self.log_file(rank), offset, limit)


def newest_fence(storage: Path, job_id: JobId) -> Fence:
    """Of the runs that have a folder; 0 when there is none."""
    try:
        names = [path.name for path in (storage / job_id).iterdir()]
    except FileNotFoundError:
        return Fence(0)
    fences = (name.removeprefix("run-") for name in names if name.startswith("run-"))
    return Fence(max((int(fence) for fence in fences if fence.isdigit()), default=0))
