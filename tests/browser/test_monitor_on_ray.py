"""The monitor over the real system: a person follows a job, pauses it, resumes it, and sees how it ended."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import Complaints, violations
from tests.conftest import Cluster

pytestmark = pytest.mark.ray
SOON_MS = 60_000
"""Runs start and end while the page is open."""


@pytest.fixture
def page(browser: Browser, cluster: Cluster, complaints: Complaints) -> Iterator[Page]:
    context = browser.new_context(base_url=cluster.info.api_url, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(SOON_MS)
    expect.set_options(timeout=SOON_MS)
    page = context.new_page()
    complaints.watch(page)
    yield page
    expect.set_options(timeout=5_000)
    context.close()


def status_of(page: Page) -> Locator:
    return page.locator("#job-now .status").first


def test_u1_u2_u5_a_job_is_followed_paused_and_resumed_on_the_page(page: Page, cluster: Cluster) -> None:
    """The whole way of a person who never leaves the browser, and never loads a page anew."""
    job_id = cluster.submit("quick", {"steps": 400, "step_time_s": 0.05}, name="seen by people")
    page.goto("/training")
    row = page.locator("tr", has_text="seen by people").first
    expect(row.locator(".status")).to_have_text("running")
    expect(row).to_contain_text(re.compile(r"step \d+"))
    row.get_by_role("link", name="seen by people").click()

    expect(page.locator("h1")).to_contain_text("seen by people")
    expect(status_of(page)).to_have_text("running")
    expect(page.locator(".uplot").first).to_be_visible()
    page.locator("[data-asks=pause]").first.click()
    page.locator("dialog").get_by_role("button", name=re.compile("pause", re.IGNORECASE)).click()
    expect(status_of(page)).to_have_text("paused")
    step = cluster.status(job_id).last_checkpoint.step
    page.keyboard.press("Escape")
    expect(page.locator("main")).to_contain_text(re.compile(rf"step {step}\b"))

    page.locator("#card-go").click()
    expect(status_of(page)).to_have_text("running")
    assert cluster.status(job_id).attempt == 2
    assert violations(page) == []
    cluster.client.cancel(job_id)
    expect(status_of(page)).to_have_text("cancelled")
    expect(page.locator("main")).to_contain_text("Job Cancelled - Restart Available")
