"""`make bench`: every benchmark, one after the other; each writes its own file in benchmarks/results/."""

from __future__ import annotations

import subprocess
import sys

ALL = (
    "placement_bench",
    "policy",
    "journal_bench",
    "restart",
    "mirror_relay",
    "reconcile_pass",
    "submits",
    "start_latency",
    "sft_speed",
    "control",
    "list_page",
    "open_pages",
)

if __name__ == "__main__":
    for name in sys.argv[1:] or ALL:
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
