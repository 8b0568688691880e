"""A browser with many tabs: all of them are live, over one connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from scheduler.core.model import Status
from tests.browser.conftest import Complaints
from tests.browser.jobs import monitor, submit, submit_until
from tests.conftest import wait_until
from tests.unit.served import Served


class Asked:
    """ASGI: which paths are being answered."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.open: Counter[str] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        self.open[path] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.open[path] -= 1


@pytest.fixture
def asked(served: Served) -> Asked:
    asked = served.unready.app = Asked(served.unready.app)
    return asked


def streams(asked: Asked) -> Callable[[], bool]:
    return lambda: {path: count for path, count in asked.open.items() if count} == {"/training/streams": 1}


def test_eight_tabs_are_live_over_one_connection(
    served: Served, asked: Asked, context: BrowserContext, complaints: Complaints
) -> None:
    """B: a browser has six connections to a server, so the seventh tab never loaded."""
    job_id = submit_until(served, Status.RUNNING, "shared")
    served.runner.write(job_id, "first line\n")
    pages = [context.new_page() for _ in range(8)]
    for number, page in enumerate(pages):
        complaints.watch(page)
        page.goto(monitor(job_id) if number % 2 else "/training")
    wait_until(streams(asked), within_s=30, what=f"one stream is open; there are {asked.open}")
    served.runner.tell(job_id, step=77, total_steps=100)
    served.runner.write(job_id, "second line\n")
    for number, page in enumerate(pages):
        if number % 2:
            expect(page.locator("#job-now")).to_contain_text("step 77 of 100")
            expect(page.locator("#logs-lines")).to_contain_text("second line")
        else:
            expect(page.locator(f"#job-{job_id}")).to_contain_text("step 77 of 100")
        expect(page.locator("[data-freshness]").first).to_have_attribute("data-freshness", "fresh")
    wait_until(streams(asked), within_s=30, what=f"one stream is open; there are {asked.open}")
    for page in pages[1:]:
        page.close()
    submit(served, "after the others")  # whoever stays is still told
    expect(pages[0].locator("#rows")).to_contain_text("after the others")
    wait_until(lambda: len(served.streams) == 1, within_s=30, what="what closed tabs listened to has ended")


def test_a_lost_connection_is_made_again_for_all_tabs(
    served: Served, context: BrowserContext, page: Page
) -> None:
    """Where each of them was: nothing is missed, and nothing told twice."""
    job_id = submit_until(served, Status.RUNNING, "shared")
    list_page = context.new_page()
    list_page.goto("/training")
    page.goto(monitor(job_id))
    served.runner.write(job_id, "before\n")
    expect(page.locator("#logs-lines")).to_contain_text("before")
    served.call(served.wire.cut())
    served.call(served.wire.open())
    served.runner.write(job_id, "after\n")
    served.runner.tell(job_id, step=78)
    expect(page.locator("#logs-lines")).to_contain_text("after")
    expect(list_page.locator(f"#job-{job_id}")).to_contain_text("step 78")
    lines = page.locator("#logs-lines .line:not(.note)").all_inner_texts()
    assert (lines.count("before"), lines.count("after")) == (1, 1)


def test_a_tab_that_finds_no_place_says_why(served: Served, page: Page) -> None:
    """B: "the server is not heard" would be no word of what to do."""
    served.streams.most = 0
    page.goto("/training")
    expect(page.locator("#freshness")).to_contain_text("live streams")
    served.streams.most = 10
    expect(page.locator("#freshness")).to_have_attribute("data-freshness", "fresh")
