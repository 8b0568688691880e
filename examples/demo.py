"""The whole system once, on real input: start it, fine-tune a small language model, show what it learned.

Exit code 0 only if the job completed and the loss on held-out examples went down.  Run it with `make demo`;
`python examples/demo.py --down` stops what it left running.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

import scheduler
from scheduler.cli.follow import follow
from scheduler.server import local_cluster
from scheduler.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".demo"
console = Console(width=None if sys.stdout.isatty() else 100)


def settings() -> Settings:
    """The demo's own folders; the port and the rest as usual."""
    os.environ.setdefault("SCHEDULER_STATE_DIR", str(HOME / "state"))
    os.environ.setdefault("SCHEDULER_STORAGE_PATH", str(HOME / "storage"))
    os.environ.setdefault("SCHEDULER_CLUSTER", "demo")
    # One job only: on a small machine, preparing processes for a next one would slow this one.
    os.environ.setdefault("SCHEDULER_WARM_RUNS", "0")
    return Settings()


def report(job: scheduler.JobDocument) -> bool:
    """Print what was learned; returns whether it was."""
    metrics = job.result.metrics if job.result else {}
    before, after = metrics.get("eval_loss_before"), metrics.get("eval_loss_after")
    if job.status != "completed" or before is None or after is None:
        console.print(
            Panel(f"{job.status}: {job.reason.message}\n\n{job.reason.detail or ''}", title="not completed")
        )
        return False
    table = Table(title="What the model learned", show_lines=True)
    for column in ("", "before", "after"):
        table.add_column(column, overflow="fold")
    table.add_row("loss on held-out examples", f"{before:.3f}", f"{after:.3f}")
    for sample in metrics.get("samples", []):
        table.add_row(sample["prompt"], sample["before"], sample["after"])
    console.print(table)
    return after < before


def where(info: local_cluster.UpInfo, job: scheduler.JobDocument) -> None:
    console.print(f"adapter      {job.result.output_dir if job.result else '-'}")
    console.print(f"monitor      {info.monitor_url}/monitor?jobId={job.job_id}")
    console.print(f"Ray          {info.dashboard_url}  (token: cat {info.ray_token_path})")
    console.print(f"command line export SCHEDULER_URL={info.api_url}; .venv/bin/scheduler list")
    console.print("to stop      make demo-down")


def main() -> int:
    if "--down" in sys.argv:
        console.print("stopped" if local_cluster.down(settings()) else "nothing was running")
        return 0
    with console.status("starting Ray, the scheduler and its API"):
        info = local_cluster.up(settings())
    console.print(f"the scheduler is up on {info.api_url}")
    client = scheduler.Client(url=info.api_url)
    os.chdir(ROOT)  # the paths in the file are seen from here
    job = client.submit(scheduler.load_spec("examples/sft-lora.yaml"))
    document = follow(job, console)
    learned = report(document)
    where(info, document)
    return 0 if learned else 1


if __name__ == "__main__":
    sys.exit(main())
