"""What was repaired, how the scheduler is, and whose turn it is: in a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

import pytest
from playwright.sync_api import Browser, Page, expect

from scheduler.api.health import DatabaseHealth, Health, HolderDocument, LoopHealth, NodeHealth, PoolHealth
from scheduler.api.repairs import RepairDocument
from scheduler.errors import MirrorUnavailable, RegistryUnavailable
from scheduler.settings import Settings
from serve_app.app import create_app
from tests.browser.conftest import Complaints, violations
from tests.unit.recording_registry import (
    JOB_ID,
    NOW,
    RecordingRegistry,
    a_holding_job,
    a_queue,
    a_repair,
    a_share,
    a_waiting_job,
)
from tests.unit.served import app_at_port

HOSTILE = "<img src=x onerror=alert(1)>\"'"


class Registry(RecordingRegistry):
    """What a comparison finds is listed from then on, and not found again."""

    def __init__(self) -> None:
        super().__init__()
        self.differs: list[RepairDocument] = []
        self.is_well = Health(status="healthy", version="1")

    async def reconcile(self, dry_run: bool):  # type: ignore[no-untyped-def]
        listed, self.put_right = self.put_right, self.differs
        answer = await super().reconcile(dry_run)
        self.put_right = listed
        if not dry_run:
            self.put_right, self.differs = [*self.differs, *listed], []
        return answer

    async def health(self) -> Health:
        await super().health()
        return self.is_well


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def url(registry: Registry) -> Iterator[str]:
    with app_at_port(create_app(registry, Settings())) as url:
        yield url


@pytest.fixture
def plain(browser: Browser) -> Iterator[Page]:
    """A browser without JavaScript."""
    context = browser.new_context(java_script_enabled=False)
    yield context.new_page()
    context.close()


class TestRepairs:
    def test_each_repair_says_what_was_seen_on_both_sides_and_why(
        self, registry: Registry, url: str, page: Page
    ) -> None:
        """L10: whoever finds a job failed that the database calls running wants to know who decided that."""
        registry.put_right = [a_repair()]
        page.goto(f"{url}/training/repairs")
        line = page.locator(".repairs tbody tr")
        for words in (
            "running, version 3",
            "not in the registry",
            "marked it as failed: stale",
            "last vouched for 640 s ago",
            "reconciler",
        ):
            expect(line).to_contain_text(words)
        expect(line.get_by_role("link")).to_have_attribute("href", f"/training/monitor?jobId={JOB_ID}")
        expect(line.locator("time")).to_have_attribute("datetime", NOW.isoformat())

    def test_older_repairs_are_on_further_pages(self, registry: Registry, url: str, page: Page) -> None:
        registry.put_right = [a_repair(why=f"because {number}") for number in range(60)]
        page.goto(f"{url}/training/repairs")
        page.get_by_role("link", name="Older").click()
        expect(page.locator(".repairs tbody tr")).to_have_count(10)
        page.get_by_role("link", name="Newest").click()
        expect(page.locator(".repairs tbody tr")).to_have_count(50)

    def test_a_comparison_shows_first_what_it_would_do_then_does_it(
        self, registry: Registry, url: str, page: Page
    ) -> None:
        """L10: nobody changes states by looking."""
        registry.differs = [a_repair()]
        page.goto(f"{url}/training/repairs")
        page.get_by_role("button", name="Compare now").click()
        comparison = page.locator("#comparison")
        expect(comparison).to_contain_text("1 to be repaired")
        assert [call for call in registry.calls if call[0] == "reconcile"] == [("reconcile", True)]
        comparison.get_by_role("button", name="Repair this now").click()
        expect(comparison).to_contain_text("1 repaired")
        assert ("reconcile", False) in registry.calls
        comparison.get_by_role("link", name="Load the list anew").click()
        expect(page.locator(".repairs tbody tr")).to_have_count(1)
        page.get_by_role("button", name="Compare now").click()
        expect(page.locator("#comparison")).to_contain_text("Everything agrees")

    def test_a_comparison_works_without_a_script(self, registry: Registry, url: str, plain: Page) -> None:
        registry.differs = [a_repair()]
        plain.goto(f"{url}/training/repairs")
        plain.get_by_role("button", name="Compare now").click()
        expect(plain.locator("#comparison")).to_contain_text("1 to be repaired")
        plain.get_by_role("button", name="Repair this now").click()
        expect(plain.locator("#comparison")).to_contain_text("1 repaired")
        expect(plain.locator("main > .repairs tbody tr")).to_have_count(1)

    def test_a_database_that_is_away_is_said_and_nothing_is_claimed(
        self, registry: Registry, url: str, page: Page
    ) -> None:
        registry.refuses_in["reconcile"] = MirrorUnavailable("the database refuses connections")
        page.goto(f"{url}/training/repairs")
        page.get_by_role("button", name="Compare now").click()
        expect(page.locator("#comparison")).to_contain_text("Not compared")
        expect(page.locator("#comparison")).to_contain_text("the database refuses connections")

    def test_what_a_database_said_is_shown_as_text(self, registry: Registry, url: str, page: Page) -> None:
        registry.put_right = [a_repair(in_database=HOSTILE, in_reality=HOSTILE, why=HOSTILE, by=HOSTILE)]
        page.goto(f"{url}/training/repairs?cursor=0")
        expect(page.locator(".repairs tbody td").nth(2)).to_have_text(HOSTILE)
        expect(page.locator("main img")).to_have_count(0)


WELL = Health(
    status="healthy",
    version="1.2.3",
    registry={
        "incarnation": 7,
        "pid": 4242,
        "started_at": NOW.isoformat(),
        "jobs": {"running": 1, "paused": 0},
    },
    database=DatabaseHealth(
        configured=True, ok=True, last_success_at=NOW, incarnation=7, note="all mirrored"
    ),
    loops={"tick": LoopHealth(every_s=1, passes=9, last_success_at=NOW, next_run_at=NOW)},
    unmirrored_writes=3,
    pool=PoolHealth(size=2, ready=1, hits=5, misses=4),
    nodes=[
        NodeHealth(
            node_id="n1",
            name="gpu-node-1",
            cpus=8,
            gpus=4,
            free_cpus=6,
            free_gpus=1,
            draining=True,
            held_by=[HolderDocument(job_id=JOB_ID, name="llama", user="ana", ranks=3, cpus=2, gpus=3)],
        )
    ],
)
ILL = WELL.model_copy(
    update={
        "status": "degraded",
        "problems": ["the loop tick has failed 3 times"],
        "loops": {"tick": LoopHealth(every_s=1, errors=3, last_error="disk full", last_error_at=NOW)},
    }
)


class TestHealth:
    def test_it_tells_who_holds_each_node(self, registry: Registry, url: str, page: Page) -> None:
        """L9: `why does mine not start?` is most often answered here."""
        registry.is_well = WELL
        page.goto(f"{url}/training/health")
        node = page.locator("#node-n1")
        for words in ("gpu-node-1", "draining", "3 of 4 held, 1 free", "2 of 8 held, 6 free", "ana"):
            expect(node).to_contain_text(words)
        expect(node.get_by_role("link", name="llama")).to_have_attribute(
            "href", f"/training/monitor?jobId={JOB_ID}"
        )
        expect(node.get_by_label("GPUs held")).to_have_attribute("value", re.compile(r"^3"))

    def test_it_tells_of_the_scheduler_its_database_and_its_loops(
        self, registry: Registry, url: str, page: Page
    ) -> None:
        registry.is_well = WELL
        page.goto(f"{url}/training/health")
        for words in ("1.2.3", "4242", "all mirrored", "1 of 2", "Writes not mirrored yet", "Healthy"):
            expect(page.locator("#health")).to_contain_text(words)
        expect(page.get_by_role("link", name="1 running")).to_have_attribute(
            "href", "/training?status=running"
        )

    def test_it_renews_itself_and_says_in_words_what_is_wrong(
        self, registry: Registry, url: str, page: Page
    ) -> None:
        """Nobody presses reload at three in the morning."""
        registry.is_well = WELL
        page.clock.install()
        page.goto(f"{url}/training/health")
        expect(page.locator("#health")).to_contain_text("Healthy")
        registry.is_well = ILL
        page.clock.run_for(6_000)
        for words in ("Degraded", "the loop tick has failed 3 times", "disk full"):
            expect(page.locator("#health")).to_contain_text(words)

    def test_a_scheduler_that_does_not_answer_has_a_page_too(
        self, registry: Registry, url: str, page: Page
    ) -> None:
        """And what it cannot know is not shown as zero."""
        registry.refuses_in["health"] = RegistryUnavailable("the actor is away")
        page.goto(f"{url}/training/health")
        expect(page.locator("#health")).to_contain_text("the actor is away")
        expect(page.locator("#health")).not_to_contain_text("not mirrored")
        expect(page.locator(".node")).to_have_count(0)

    def test_a_server_that_is_gone_turns_the_age_amber(
        self, registry: Registry, page: Page, complaints: Complaints
    ) -> None:
        """The last good words would otherwise stand there for ever."""
        registry.is_well = WELL
        page.clock.install()
        with app_at_port(create_app(registry, Settings())) as url:
            page.goto(f"{url}/training/health")
        page.clock.run_for(12_000)
        expect(page.locator("[data-freshness]")).to_have_attribute("data-freshness", "stale")
        expect(page.locator("#health")).to_contain_text("gpu-node-1")
        complaints[:] = [words for words in complaints if "htmx:" not in words]  # it tells of the lost server


QUEUE = a_queue(
    projects=[
        a_share("vision", quota=8.0),
        a_share("speech", held=0.0, lent=0.0),
        a_share(HOSTILE, held=4.0),
    ],
    waiting=[
        a_waiting_job(kept=True),
        a_waiting_job(position=2, name=HOSTILE, project=HOSTILE, starts_in_s=None),
    ],
    holding=[a_holding_job(on_loan=True), a_holding_job(name=HOSTILE, left_s=None)],
)


class TestQueue:
    def test_it_shows_whose_turn_it_is_and_renews_itself(
        self, registry: Registry, url: str, page: Page
    ) -> None:
        """S1, S10: bars and a time line, with the same in words."""
        registry.known_queue = QUEUE
        page.clock.install()
        page.goto(url)
        page.get_by_role("link", name="Queue", exact=True).click()
        expect(page.get_by_role("img", name="vision: holds 12 GPUs, is entitled to 10")).to_be_visible()
        expect(page.get_by_role("img", name="waits: starts in about 6 min")).to_be_visible()
        expect(page.locator(".waiting tbody tr")).to_have_count(2)
        expect(page.locator("main img")).to_have_count(0)
        registry.known_queue = a_queue()
        page.clock.run_for(6_000)
        expect(page.locator("#queue")).to_contain_text("Nothing runs, and nothing waits")

    def test_it_is_whole_without_a_script(self, registry: Registry, url: str, plain: Page) -> None:
        registry.known_queue = QUEUE
        plain.goto(f"{url}/training/queue")
        expect(plain.locator(".shares tbody tr")).to_have_count(3)
        bar = plain.locator(".shares .lent").first.bounding_box()
        assert bar and bar["width"] > 20


class TestUsage:
    def test_it_is_whole_without_a_script_and_leads_to_the_csv(
        self, registry: Registry, url: str, plain: Page
    ) -> None:
        """O5: bars for projects and days, their numbers beside them, and a table to take away."""
        plain.goto(url)
        plain.get_by_role("link", name="Usage", exact=True).click()
        expect(plain.get_by_role("img", name="vision: 20.0 GPU hours")).to_be_visible()
        bar = plain.locator(".shares .own").first.bounding_box()
        assert bar and bar["width"] > 20
        with plain.expect_download() as started:
            plain.get_by_role("link", name="Download as CSV").click()
        assert started.value.suggested_filename == "usage-2026-11-01-2026-11-03.csv"
        plain.get_by_label("From").fill("2026-11-02")
        plain.get_by_role("button", name="Show").click()
        expect(plain).to_have_url(re.compile("from=2026-11-02"))
        asked = [call[1] for call in registry.calls if call[0] == "usage"]
        assert asked[-1] == date(2026, 11, 2)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["repairs", "health", "queue", "usage"])
def test_nothing_hinders_anybody(
    path: str, scheme: str, width: int, registry: Registry, url: str, page: Page
) -> None:
    """WCAG AA by axe, at a desk and on a phone, where nothing is wider than the screen."""
    registry.is_well, registry.put_right, registry.differs = ILL, [a_repair()], [a_repair()]
    registry.known_queue = QUEUE
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(f"{url}/training/{path}")
    if path == "repairs":
        page.get_by_role("button", name="Compare now").click()
        expect(page.locator("#comparison")).to_contain_text("to be repaired")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
