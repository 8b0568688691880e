"""The whole monitor below a path of a proxy, in a browser: no link, form or stream leads beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from starlette.requests import Request

from scheduler.core.model import Status
from tests.browser.conftest import Complaints
from tests.browser.jobs import submit_until
from tests.browser.reverse_proxy import ReverseProxy
from tests.unit.served import Served, app_at_port, scheduler_at

PREFIX = "/trainer"


def keeps_the_host(request: Request) -> dict[str, str]:
    return {"host": request.headers["host"]}


def tells_of_itself(request: Request) -> dict[str, str]:
    """The server is asked under its own address then."""
    return {
        "X-Forwarded-Prefix": PREFIX,
        "X-Forwarded-Host": request.headers["host"],
        "X-Forwarded-For": "10.1.2.3",
    }


@dataclass
class Behind:
    served: Served
    page: Page
    url: str


@pytest.fixture(params=["root path", "trusted headers"])
def behind(request: Any, tmp_path: Path, browser: Browser, complaints: Complaints) -> Iterator[Behind]:
    is_told = request.param == "trusted headers"
    settings: dict[str, Any] = {"trust_proxy": True} if is_told else {"root_path": PREFIX}
    with ExitStack() as stack:
        served = stack.enter_context(scheduler_at(tmp_path, **settings))
        proxy = ReverseProxy(served.url, PREFIX, tells_of_itself if is_told else keeps_the_host)
        url = stack.enter_context(app_at_port(proxy))
        context = stack.enter_context(
            browser.new_context(base_url=url, viewport={"width": 1280, "height": 900})
        )
        context.set_default_timeout(15_000)
        page = context.new_page()
        complaints.watch(page)
        yield Behind(served, page, url)
        context.close()
        assert proxy.strays == []


def test_everything_works_below_the_path(behind: Behind) -> None:
    """C: links, forms, files, redirects, cookies and streams led to the root of the proxy, where somebody else is."""
    served, page = behind.served, behind.page
    job_id = submit_until(served, Status.RUNNING, "below")
    page.goto(f"{PREFIX}/")
    expect(page).to_have_url(re.compile(rf"{PREFIX}/training$"))
    expect(page.locator("#freshness")).to_have_attribute("data-freshness", "fresh")
    served.runner.tell(job_id, step=7, total_steps=9)
    expect(page.locator(f"#job-{job_id}")).to_contain_text("step 7 of 9")

    page.locator(f"#job-{job_id} .job-link").click()
    served.runner.write(job_id, "said live\n")
    expect(page.locator("#logs-lines")).to_contain_text("said live")
    with page.expect_download() as download:
        page.locator("#logs-download").click()
    assert "said live" in Path(download.value.path()).read_text()
    page.locator(".me summary").click()
    page.locator(".me input[name=name]").fill("ana")
    page.get_by_role("button", name="Keep").click()
    expect(page.locator(".me summary")).to_have_text("ana")
    assert {cookie["path"] for cookie in page.context.cookies()} == {PREFIX}
    page.locator("[data-asks=cancel]").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_contain_text("done")
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    expect(page.locator("#job-now")).to_have_attribute("data-status", "cancelled")

    page.get_by_role("link", name="Clone").click()
    page.get_by_role("button", name="Submit").click()
    expect(page).to_have_url(re.compile(rf"{PREFIX}/training/monitor\?jobId="))
    for name in ("Repairs", "Health", "API", "Jobs"):
        page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
        expect(page).to_have_url(re.compile(PREFIX))
        expect(page.locator("h1")).to_be_visible()


def test_it_works_without_a_script_too(behind: Behind, browser: Browser) -> None:
    """Each answer leads on by itself."""
    job_id = submit_until(behind.served, Status.RUNNING, "below")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{behind.url}{PREFIX}/training")
    page.get_by_role("link", name="below").click()
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Close").click()
    expect(page).to_have_url(re.compile(rf"{PREFIX}/training/monitor\?jobId={job_id}"))
    context.close()
