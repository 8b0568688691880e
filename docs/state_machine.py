"""Writes state_machine.md from the edges in the code:  python docs/state_machine.py"""

from __future__ import annotations

from pathlib import Path

from scheduler.core.lifecycle import EDGES


def page() -> str:
    arrows = [f"    {status} --> {to}" for status, tos in EDGES.items() for to in sorted(tos)]
    rows = [f"| {status} | {', '.join(sorted(tos)) or 'nothing'} |" for status, tos in EDGES.items()]
    return "\n".join(
        [
            "# The states of a job",
            "",
            "Made from `EDGES` in `scheduler/core/lifecycle.py` by `python docs/state_machine.py`; a test",
            "fails when it is stale. Each edge has its reason beside it in the code.",
            "",
            "```mermaid",
            "stateDiagram-v2",
            "    [*] --> pending: written by a front end",
            "    [*] --> queued: submitted",
            *arrows,
            "    completed --> [*]",
            "```",
            "",
            "| from | to |",
            "| --- | --- |",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page())
