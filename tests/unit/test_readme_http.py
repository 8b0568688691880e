"""The requests that the README shows, sent as it shows them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.unit.served import scheduler_at

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def test_the_requests_of_the_readme_are_answered(tmp_path: Path) -> None:
    """D5: a stranger copies them before anything else."""
    block = next(one for one in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if one.startswith("curl"))
    commands = re.findall(r"^curl (?:.*\\\n)*.*", block, re.MULTILINE)
    assert len(commands) == 3
    with scheduler_at(tmp_path) as served:
        answers: list[dict[str, Any]] = []
        for command in commands:
            told = command.replace("localhost:8000", served.url.removeprefix("http://"))
            job_id = answers[0]["job_id"] if answers else ""
            done = subprocess.run(
                ["bash", "-c", told.replace("JOB_ID", job_id).replace("curl", "curl -sS", 1)],
                capture_output=True,
                text=True,
                timeout=30,
            )
            answers.append(json.loads(done.stdout))
    submitted, status, health = answers
    assert submitted["status"] == "queued"
    assert status["job_id"] == submitted["job_id"]
    assert health["status"] == "healthy"
