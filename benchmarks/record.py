"""Where results go, and on what machine they were seen."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")


def kept(name: str) -> dict[str, Any]:
    """What an earlier run left, for a benchmark that was asked for one of its parts only."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write(name: str, result: dict[str, Any]) -> None:
    """Keep *result* as benchmarks/results/<name>.json, and print it."""
    machine = {"cores": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()}
    document = {**result, "measured_at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine}
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(document, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
