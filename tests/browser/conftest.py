"""Debian's Chromium, driven by Playwright, over a scheduler in this process whose runs do what their specs say."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.unit.served import Served, scheduler_at

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
          "--disable-component-update", "--disable-sync"]  # fmt: skip
AXE = Path(__file__).resolve().parents[2] / ".cache" / "browser" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all tests of a file, and gone after them: while it is there, no other event loop can run."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A scheduler with an empty journal."""
    with scheduler_at(tmp_path) as served:
        yield served


class Complaints(list[str]):
    """What the console of the browser said that it should not have."""

    def watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.append(f"{page.url}: {error}"))
        page.on("console", lambda said: self._heard(page, said))

    def _heard(self, page: Page, said: Any) -> None:
        # A page that answers 4xx is told to the console by the browser itself.
        if said.type in ("error", "warning") and "Failed to load resource" not in said.text:
            self.append(f"{page.url}: {said.text}")


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """Fails the test whose pages left anything in the console."""
    found = Complaints()
    yield found
    assert not found, found


@pytest.fixture
def context(browser: Browser, served: Served) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=served.url, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(15_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, complaints: Complaints) -> Page:
    page = context.new_page()
    complaints.watch(page)
    return page


def violations(page: Page) -> list[str]:
    """What axe finds against WCAG 2.1 A and AA on the page as it is now; empty: nothing."""
    assert AXE.exists(), f"{AXE} is missing: make install-browser"
    # Evaluated by the debugger, which no content security policy hinders.
    page.evaluate(AXE.read_text())
    found = page.evaluate(
        "() => axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']}).then(r => r.violations)"
    )
    return [f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes'][:3]]}" for one in found]
