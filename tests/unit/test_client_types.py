"""What a type checker, and so an editor, knows of a user's program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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


def test_a_type_checker_knows_what_comes_back_and_which_keywords_there_are(tmp_path: Path) -> None:
    """Else an editor completes nothing, and a misspelled field is found by the server."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)]}))
    call = [
        sys.executable,
        "-m",
        "pyright",
        "--outputjson",
        "--pythonpath",
        sys.executable,
        "-p",
        str(tmp_path),
    ]
    said = json.loads(subprocess.run(call, capture_output=True, text=True, check=False).stdout)
    told = [one["message"] for one in said["generalDiagnostics"]]
    assert [words.rpartition(" is ")[2].strip('"') for words in told[:-1]] == [
        "AsyncJobHandle",
        "JobDocument",
        "MetricsDocument",
        "JobHandle",
        "DataFrame",
        "Changes | DoubtNotice",
    ]
    assert told[-1] == 'No parameter named "nmae"'
