"""What a type checker, and so an editor, knows of a user's program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """\
import scheduler

def train(config: dict[str, int]) -> int:
    return config["a"]

async def main() -> None:
    client = scheduler.AsyncClient()
    job = await client.submit(train, config={"a": 1}, resources={"num_ranks": 2})
    reveal_type(job)
    reveal_type(await job.wait(progress=True))
    reveal_type(await job.metrics(table=False))

with scheduler.submit(train, config={"a": 1}, priority=3) as job:
    reveal_type(job)
    reveal_type(job.metrics(table=True))
for change in scheduler.Client().changes(user="ana"):
    reveal_type(change)
scheduler.submit(loop="sft", nmae="x")
"""

RIGHT = """\
import scheduler

job = scheduler.submit(loop="sft", config={"steps": 10}, resources={"num_ranks": 2})
document = job.wait(60, on_update=lambda seen: print(seen.status))
saved = document.last_checkpoint
step: int | None = saved.step if saved else None
for line in job.logs(follow=True, rank="all"):
    print(line.upper())
print(step, job.result().output_dir, scheduler.plan(loop="sft").message)
"""
WRONG = """\
import scheduler

job = scheduler.submit(loop=3)
job.wiat()
job.wait("soon")
print(job.wait().state)
scheduler.list_jobs(stauts="queued")
"""


def diagnostics(folder: Path, program: str, **config: Any) -> list[tuple[int, str, str]]:
    """Line, rule and message of each thing that pyright finds in *program* of a user."""
    (folder / "program.py").write_text(program)
    (folder / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)], **config}))
    python = ["--pythonpath", sys.executable]
    call = [sys.executable, "-m", "pyright", "--outputjson", *python, "-p", str(folder)]
    found = json.loads(subprocess.run(call, capture_output=True, text=True, check=False).stdout)
    return [
        (one["range"]["start"]["line"] + 1, one.get("rule", ""), one["message"])
        for one in found["generalDiagnostics"]
    ]


def test_a_right_program_is_clean_in_strict_mode(tmp_path: Path) -> None:
    """`py.typed` promises that every public name has its whole type."""
    assert diagnostics(tmp_path, RIGHT, typeCheckingMode="strict") == []


def test_each_wrong_use_is_reported_where_it_stands(tmp_path: Path) -> None:
    found = diagnostics(tmp_path, WRONG)
    assert [(line, rule) for line, rule, _ in found] == [
        (3, "reportArgumentType"),
        (4, "reportAttributeAccessIssue"),
        (5, "reportArgumentType"),
        (6, "reportAttributeAccessIssue"),
        (7, "reportCallIssue"),
    ], found


def test_a_type_checker_knows_what_comes_back_and_which_keywords_there_are(tmp_path: Path) -> None:
    """Else an editor completes nothing, and a misspelled field is found by the server."""
    told = [message for _, _, message in diagnostics(tmp_path, PROGRAM)]
    assert [words.rpartition(" is ")[2].strip('"') for words in told[:-1]] == [
        "AsyncJobHandle",
        "JobDocument",
        "MetricsDocument",
        "JobHandle",
        "DataFrame",
        "Changes | DoubtNotice",
    ]
    assert told[-1] == 'No parameter named "nmae"'
