"""The pictures of the README, taken from a running system: `make pictures`.

Starts a scheduler of its own, lets a few people's jobs run on it (one fine-tunes the real model of the demo), and looks
at the pages as they do.  Takes about three minutes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from scheduler.server import local_cluster
from tests.browser.conftest import CHROMIUM, QUIET
from tests.conftest import ROOT, Cluster, start_cluster

IMAGES = ROOT / "docs" / "images"
LONG_PX = 1500
MODEL = ROOT / ".cache" / "models" / "SmolLM2-135M-Instruct"
SFT = {
    "model": str(MODEL),
    "dataset": str(ROOT / "examples" / "data" / "train.jsonl"),
    "eval_dataset": str(ROOT / "examples" / "data" / "heldout.jsonl"),
    "max_steps": 60,
    "batch_size": 2,
    "max_length": 128,
    "learning_rate": 5e-4,
    "warmup_steps": 4,
    "checkpoint_every_steps": 10,
    "eval_every_steps": 20,
    "sample_prompts": ["What does the status `paused` mean?"],
    "sample_max_tokens": 32,
}


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="sched-"))
    os.chdir(ROOT)
    IMAGES.mkdir(parents=True, exist_ok=True)
    cluster = start_cluster(folder, "lab", data_roots=(ROOT,))
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
            _take(browser, cluster, _fill(cluster))
            browser.close()
    finally:
        local_cluster.down(cluster.settings)
        shutil.rmtree(folder, ignore_errors=True)


def _fill(cluster: Cluster) -> str:
    """A working day; returns the job that is looked at, while it trains."""
    done = cluster.submit("quick", {"steps": 30}, name="tokenizer-check", user="ana", project="support")
    failed = cluster.submit("crash", {"at": 12, "steps": 40}, name="reward-model", user="ben", project="rlhf")
    cluster.wait_for(done, "completed")
    cluster.wait_for(failed, "failed")
    paused = cluster.submit("quick", {"steps": 400, "step_time_s": 0.05}, name="eval-sweep", user="chen")
    cluster.wait_for_step(paused, 8)
    cluster.client.pause(paused)
    cluster.wait_for(paused, "paused")
    shown = cluster.submit("sft", SFT, name="support-bot", user="ana", project="support")
    other = cluster.submit(
        "quick", {"steps": 2000, "step_time_s": 0.2}, name="ablation-3", user="ben", project="rlhf"
    )
    cluster.submit("quick", {}, name="full-finetune", user="chen", resources={"num_ranks": 4})
    cluster.submit("quick", {}, name="ablation-4", user="ben", project="rlhf", resources={"num_ranks": 3})
    cluster.wait_for_step(other, 5)
    cluster.wait_for_step(shown, 24)
    cluster.client.preempt(shown)
    cluster.wait_for_step(shown, 34, attempt=2)
    return shown


def _take(browser: Browser, cluster: Cluster, job_id: str) -> None:
    page = _page(browser, cluster, 1280, 860)
    _picture(page, "/training", "list")
    _picture(page, f"/training/monitor?jobId={job_id}", "job", is_long=True)
    waiting = next(job for job in cluster.client.list_jobs(status="queued") if job.name == "full-finetune")
    _picture(page, f"/training/monitor?jobId={waiting.job_id}", "waiting")
    failed = next(job for job in cluster.client.list_jobs(status="failed"))
    _picture(page, f"/training/monitor?jobId={failed.job_id}", "failed")
    _picture(page, "/training/health", "health")
    _picture(page, "/training/submit?loop=sft", "submit")
    phone = _page(browser, cluster, 390, 800, color_scheme="dark")
    _picture(phone, "/training", "phone")


def _page(browser: Browser, cluster: Cluster, width: int, height: int, **more: Any) -> Page:
    context = browser.new_context(
        base_url=cluster.info.api_url, viewport={"width": width, "height": height}, **more
    )
    return context.new_page()


def _picture(page: Page, path: str, name: str, *, is_long: bool = False) -> None:
    page.goto(path)
    page.wait_for_timeout(2_500)  # what comes by itself after the first paint: curves, sparklines
    clip = {"x": 0, "y": 0, "width": 1280, "height": LONG_PX} if is_long else None
    page.screenshot(path=IMAGES / f"{name}.png", full_page=is_long, clip=clip)


if __name__ == "__main__":
    main()
