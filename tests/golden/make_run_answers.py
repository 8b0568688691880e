"""Write what a run's actor of this release answers, once: `python tests/golden/make_run_answers.py NUMBER`.

A run that is alive while the scheduler is upgraded goes on in its old code.  Its answers are pickles, whose classes the
new code looks up by module and name, and fills by position.
"""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scheduler.core.hangs import Pace
from scheduler.core.lifecycle import StartRun
from scheduler.core.model import (
    After,
    Allocation,
    ArrayPlace,
    Cause,
    CheckpointId,
    CheckpointPolicy,
    Ending,
    Fence,
    Gang,
    JobId,
    JobSpec,
    NodeId,
    Origin,
    Outcome,
    Phase,
    Reason,
    Resumption,
    Saved,
)
from scheduler.ports import Observation, RankProcess

FOLDER = Path(__file__).parent
NOON = datetime(2026, 11, 30, 12, 0, 0, 123456, tzinfo=UTC)


def answers() -> dict[str, Any]:
    """Each field has a value of its own, so that one that slips into another's place is seen."""
    ranks = tuple(
        RankProcess(
            rank=rank, node_id=f"node-{rank}", pid=100 + rank, created_at_s=1e9 + rank, scratch=f"/{rank}"
        )
        for rank in range(2)
    )
    resumed = Resumption(
        checkpoint=CheckpointId("1.2"), step=20, checked=("9 files",), differs=("seed",), skipped=("1.3",)
    )
    saved = Saved(checkpoint=CheckpointId("2.4"), step=40, at=NOON)
    reason = Reason(code="oom", message="out of memory", detail="Traceback ...")
    spec = JobSpec(
        loop="sft",
        name="é",
        config={"lr": 1e-4, "deep": {"list": [1, None]}},
        resources=Gang(num_ranks=2, cpus_per_rank=1.5, gpus_per_rank=0.5),
        checkpoints=CheckpointPolicy(keep_last=2),
        after=[After(job="job-0", on="ended")],
        start_after=NOON,
        deadline=NOON,
        preemptible=False,
        array=ArrayPlace(
            id="array-0", index=2, size=8, at_most=3, keys=["lr"], metric="score", metric_is="max"
        ),
    )
    return {
        "observation": Observation(
            phase=Phase.TRAINING,
            phases={"reserving": 1.0, "training": 3.0, "clock.now": 9.0},
            progress={"step": 41, "loss": 0.5},
            ranks=ranks,
            resumed=resumed,
            saved=saved,
            stop_seen_at=NOON,
            pace=Pace(steps=21, typical_s=0.25, longest_s=2.5),
            stepped_at=NOON,
        ),
        "a first observation": Observation(phase=Phase.STARTING),
        "completed": Outcome(
            ending=Ending.COMPLETED,
            reason=Reason(code="completed", message="every rank returned"),
            result={"output_dir": "/output", "metrics": {"accuracy": 0.5}, "notes": []},
            progress={"step": 50},
            saved=saved,
            resumed=resumed,
        ),
        "failed": Outcome(
            ending=Ending.FAILED,
            cause=Cause.USER,
            reason=reason,
            signature="oom:train",
            evidence={"logs": {"0": "the last line"}},
        ),
        "start": StartRun(
            job_id=JobId("job-1"),
            fence=Fence(2),
            spec=spec,
            allocation=Allocation(ranks=((NodeId("node-0"), 1), (NodeId("node-1"), 1))),
            origin=Origin(),
        ),
    }


def as_json(value: Any) -> Any:
    """What must be read again, by name."""
    return json.loads(json.dumps(asdict(value), default=str))


if __name__ == "__main__":
    golden = FOLDER / f"run-answers-{int(sys.argv[1])}.pkl"
    if golden.exists():
        raise SystemExit(f"{golden} is there: it is kept as it was released")
    golden.write_bytes(pickle.dumps(answers()))
    told = {name: as_json(value) for name, value in answers().items()}
    golden.with_suffix(".json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", "utf-8")
