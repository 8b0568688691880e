"""The list in a browser: true, live, and never in the way of whoever works with it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from scheduler.core.commands import JobAction
from scheduler.core.model import JobSpec
from scheduler.errors import RegistryUnavailable
from serve_app.pages import live_rows
from tests.browser.conftest import Complaints, violations
from tests.unit.served import LOOP, TOKEN, Served, scheduler_at

FOR_LONG = {"seconds": 600}
AT_ONCE = {"seconds": 0.01}
HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}"


def submit(served: Served, name: str = "a-job", **fields: object) -> str:
    """The id of a job that is in the line, or past it."""
    job_id = str(uuid.uuid4())
    spec = JobSpec(loop=LOOP, name=name, **({"config": FOR_LONG} | fields))  # pyright: ignore[reportArgumentType]
    served.call(served.service.commands.submit(job_id, spec, None))
    return job_id


def row(page: Page, job_id: str) -> Locator:
    return page.locator(f"#job-{job_id}")


def status(page: Page, job_id: str) -> Locator:
    return row(page, job_id).locator(".status")


def count(page: Page, of: str) -> Locator:
    return page.locator(f'[data-count="{of}"]')


def names(page: Page) -> list[str]:
    return page.locator("#rows .job-link").all_inner_texts()


def settled(page: Page, job_id: str, words: str) -> None:
    expect(status(page, job_id)).to_have_text(words)


@pytest.fixture
def plain(browser: Browser, served: Served) -> Iterator[Page]:
    """A browser without JavaScript."""
    context = browser.new_context(base_url=served.url, java_script_enabled=False)
    yield context.new_page()
    context.close()


class TestWhatIsShown:
    def test_each_status_has_its_count_and_its_own_list(self, served: Served, page: Page) -> None:
        """What waits and what failed is what people come for."""
        good = submit(served, "good", config=AT_ONCE)
        bad = submit(served, "bad", config=AT_ONCE | {"fails": 9})
        page.goto("/training")
        settled(page, good, "completed")
        settled(page, bad, "failed")
        for of, words in (("all", "2"), ("completed", "1"), ("failed", "1"), ("queued", "0")):
            expect(count(page, of)).to_have_text(words)
        page.get_by_role("link", name="failed").click()
        expect(page).to_have_url(re.compile(r"\?status=failed$"))
        assert names(page) == ["bad"]
        expect(count(page, "completed")).to_have_text("1")

    def test_a_row_says_how_far_the_job_is_and_what_backs_it(self, served: Served, page: Page) -> None:
        """U1: phase, step, loss and the age of the proof, without a click."""
        job_id = submit(
            served,
            user="ana",
            project="vision",
            config=FOR_LONG | {"progress": {"step": 30, "total_steps": 120, "loss": 0.5}},
        )
        page.goto("/training")
        for words in ("ana · vision", "running", "training", "step 30 of 120, loss 0.5"):
            expect(row(page, job_id)).to_contain_text(words)
        expect(row(page, job_id).locator("progress")).to_have_attribute("value", "25")
        expect(row(page, job_id).locator(".proved")).to_contain_text("✓")

    def test_a_waiting_job_says_why_and_where_in_the_line_it_stands(self, served: Served, page: Page) -> None:
        for _ in range(4):
            submit(served)
        waiting = submit(served, "waiting")
        page.goto("/training")
        expect(row(page, waiting)).to_contain_text("position 1")
        expect(row(page, waiting).locator(".why")).to_contain_text("needs 1 rank")

    def test_the_curve_of_the_loss_comes_after_the_page_and_outlives_a_change(
        self, served: Served, page: Page
    ) -> None:
        """It never slows the list, and a change of the row does not make it blink."""
        says = [{"step": step, "loss": 1 / (step + 1)} for step in range(40)]
        job_id = submit(served, config=FOR_LONG | {"says": says})
        page.goto("/training")
        curve = row(page, job_id).locator(".trend svg")
        expect(curve).to_have_attribute("aria-label", re.compile(r"loss from 1 to 0\.02"))
        curve.evaluate("curve => curve.dataset.seen = 'yes'")
        served.runner.tell(job_id, step=77)
        expect(row(page, job_id)).to_contain_text("step 77")
        expect(curve).to_have_attribute("data-seen", "yes")

    def test_without_jobs_it_tells_how_to_submit_one(self, page: Page) -> None:
        page.goto("/training")
        expect(page.locator(".empty")).to_contain_text("scheduler submit")

    def test_without_a_match_it_offers_to_clear_the_filters(self, served: Served, page: Page) -> None:
        submit(served)
        page.goto("/training?user=nobody&status=failed,paused")
        expect(page.locator(".empty")).to_contain_text("none that is failed or paused of nobody")
        page.get_by_role("link", name="Clear all filters").click()
        expect(page.locator("#rows > tr")).to_have_count(1)

    @pytest.mark.parametrize("query", ["status=flying", "sort=colour", "cursor=x", f"search={'x' * 300}"])
    def test_a_wrong_filter_is_told_in_words_on_a_page(self, query: str, served: Served, page: Page) -> None:
        """People edit URLs; a problem document is no page."""
        response = page.goto(f"/training?{query}")
        assert response is not None and response.status == 422
        expect(page.locator(".empty")).to_contain_text("No jobs can be shown")
        expect(page.get_by_role("link", name="All jobs", exact=True)).to_be_visible()

    def test_what_users_wrote_is_shown_as_they_wrote_it(self, served: Served, page: Page) -> None:
        """Drawn by the server and swapped in by the script: neither may run it."""
        job_id = submit(served, HOSTILE, user=HOSTILE, config=FOR_LONG | {"progress": {"step": HOSTILE}})
        page.goto("/training")
        expect(row(page, job_id).locator(".job-link")).to_have_text(HOSTILE)
        served.call(served.service.commands.act(job_id, JobAction.CANCEL, HOSTILE))
        settled(page, job_id, "cancelled")
        late = submit(served, HOSTILE + "late")
        expect(row(page, late).locator(".job-link")).to_have_text(HOSTILE + "late")
        expect(page.locator("#list img")).to_have_count(0)


class TestFinding:
    def test_filters_and_order_stand_in_the_url_and_survive_reload_and_back(
        self, served: Served, page: Page
    ) -> None:
        """U1: a list that cannot be sent to a colleague is half a list."""
        for name, user in (("beta", "ana"), ("alpha", "ana"), ("gamma", "bo")):
            submit(served, name, user=user)
        page.goto("/training")
        page.get_by_role("textbox", name="User").fill("ana")
        page.get_by_role("button", name="Filter").click()
        page.locator("thead").get_by_role("link", name="Job").click()
        expect(page).to_have_url(re.compile(r"\?user=ana&sort=name$"))
        assert names(page) == ["alpha", "beta"]
        page.reload()
        assert names(page) == ["alpha", "beta"]
        expect(page.get_by_role("textbox", name="User")).to_have_value("ana")
        page.locator("thead").get_by_role("link", name="Job").click()
        expect(page.locator("#rows .job-link").first).to_have_text("beta")
        page.go_back()
        expect(page.locator("#rows .job-link").first).to_have_text("alpha")
        expect(page.get_by_role("columnheader", name="Job")).to_have_attribute("aria-sort", "ascending")

    def test_a_search_finds_while_one_types_and_has_its_url(self, served: Served, page: Page) -> None:
        for name in ("llama-large", "llama-small", "mistral"):
            submit(served, name)
        page.goto("/training")
        page.get_by_role("searchbox").press_sequentially("LLAMA-s")
        expect(page.locator("#rows > tr")).to_have_count(1)
        assert names(page) == ["llama-small"]
        expect(page).to_have_url(re.compile(r"\?search=LLAMA-s$"))
        expect(page.get_by_role("searchbox")).to_be_focused()

    def test_older_jobs_are_on_further_pages(self, served: Served, page: Page) -> None:
        for number in range(53):
            submit(served, f"job-{number:02}")
        page.goto("/training")
        expect(page.locator("#rows > tr")).to_have_count(50)
        page.get_by_role("link", name="Older").click()
        expect(page.locator("#rows > tr")).to_have_count(3)
        assert names(page) == ["job-02", "job-01", "job-00"]
        expect(page.get_by_role("link", name="Older")).to_have_count(0)
        page.get_by_role("link", name="Newest").click()
        expect(page.locator("#rows .job-link").first).to_have_text("job-52")

    def test_whoever_said_their_name_can_see_only_their_own(self, served: Served, page: Page) -> None:
        submit(served, "hers", user="ana")
        submit(served, "his", user="bo")
        page.goto("/training")
        page.get_by_text("Who are you?").click()
        page.get_by_role("textbox", name="Your name").fill("ana")
        page.get_by_role("button", name="Keep").click()
        page.get_by_role("link", name="Mine").click()
        expect(page).to_have_url(re.compile(r"\?user=ana$"))
        assert names(page) == ["hers"]
        page.get_by_role("link", name="Everyone").click()
        expect(page.locator("#rows > tr")).to_have_count(2)


class TestLive:
    def test_a_change_is_shown_where_the_row_stands(self, served: Served, page: Page) -> None:
        """U1: nobody presses reload; what was marked and where one was stays so."""
        job_id = submit(served)
        page.goto("/training")
        settled(page, job_id, "running")
        row(page, job_id).get_by_role("checkbox").check()
        row(page, job_id).locator(".job-link").focus()
        served.call(served.service.commands.act(job_id, JobAction.CANCEL, "ana"))
        settled(page, job_id, "cancelled")
        expect(count(page, "cancelled")).to_have_text("1")
        expect(row(page, job_id).get_by_role("checkbox")).to_be_checked()
        expect(row(page, job_id).locator(".job-link")).to_be_focused()

    def test_a_new_job_comes_in_above_the_others(self, served: Served, page: Page) -> None:
        submit(served, "old")
        page.goto("/training")
        expect(page.locator("#rows > tr")).to_have_count(1)
        new = submit(served, "new")
        expect(row(page, new)).to_be_visible()
        assert names(page) == ["new", "old"]
        expect(count(page, "all")).to_have_text("2")

    def test_the_first_job_takes_the_place_of_the_advice(self, served: Served, page: Page) -> None:
        page.goto("/training")
        expect(page.locator(".empty")).to_be_visible()
        expect(page.locator("#freshness")).to_have_attribute("data-freshness", "fresh")
        job_id = submit(served)
        expect(row(page, job_id)).to_be_visible()

    def test_in_another_order_new_jobs_are_announced_and_loaded_on_demand(
        self, served: Served, page: Page
    ) -> None:
        """A list by name would jump under the hand of whoever reads it."""
        submit(served, "b", user="ana")
        page.goto("/training?user=ana&sort=name")
        submit(served, "not-hers", user="bo")
        submit(served, "a", user="ana")
        submit(served, "c", user="ana")
        button = page.get_by_role("button", name="2 new jobs")
        expect(button).to_be_visible()
        assert names(page) == ["b"]
        button.click()
        expect(page.locator("#rows > tr")).to_have_count(3)
        assert names(page) == ["a", "b", "c"]
        expect(button).to_be_hidden()

    def test_the_counts_of_a_filter_follow(self, served: Served, page: Page) -> None:
        """They are not those of everybody, which the stream tells."""
        job_id = submit(served, user="ana")
        submit(served, user="bo")
        page.goto("/training?user=ana")
        expect(count(page, "all")).to_have_text("1")
        settled(page, job_id, "running")
        served.call(served.service.commands.act(job_id, JobAction.CANCEL, "ana"))
        expect(count(page, "cancelled")).to_have_text("1")
        expect(count(page, "all")).to_have_text("1")

    def test_a_paused_list_stands_still_and_loses_nothing(self, served: Served, page: Page) -> None:
        """One cannot read, or aim at, what moves."""
        job_id = submit(served, "first")
        page.goto("/training")
        settled(page, job_id, "running")
        page.get_by_role("button", name="Pause").first.click()
        expect(page.locator("#freshness")).to_contain_text("Paused")
        served.call(served.service.commands.act(job_id, JobAction.CANCEL, "ana"))
        late = submit(served, "late")
        other = page.context.new_page()
        other.goto("/training")
        settled(other, job_id, "cancelled")
        settled(page, job_id, "running")
        page.get_by_role("button", name="Go on").click()
        settled(page, job_id, "cancelled")
        expect(row(page, late)).to_be_visible()
        expect(page.locator("#freshness")).to_contain_text("Updated")

    def test_a_server_that_is_not_heard_turns_the_age_amber_and_comes_back(
        self, served: Served, page: Page
    ) -> None:
        """U1: an old page that looks new is the worst of all."""
        job_id = submit(served)
        page.clock.install()
        page.goto("/training")
        settled(page, job_id, "running")
        served.call(served.wire.cut())
        page.clock.run_for(12_000)
        expect(page.locator("#freshness")).to_have_attribute("data-freshness", "stale")
        expect(page.locator("#freshness")).to_contain_text("not heard")
        served.call(served.service.commands.act(job_id, JobAction.CANCEL, "ana"))
        served.call(served.wire.open())
        page.clock.run_for(6_000)
        settled(page, job_id, "cancelled")
        expect(page.locator("#freshness")).to_have_attribute("data-freshness", "fresh")

    def test_a_registry_that_is_away_is_told_above_the_jobs_until_it_is_back(
        self, served: Served, page: Page
    ) -> None:
        """L6: the rows stay, under words that say what they are worth."""
        job_id = submit(served)
        page.goto("/training")
        settled(page, job_id, "running")
        served.registry.away = RegistryUnavailable("the actor is being restarted")
        expect(page.locator("#doubt")).to_contain_text("the actor is being restarted")
        expect(page.locator("#freshness")).to_have_attribute("data-freshness", "stale")
        expect(row(page, job_id)).to_be_visible()
        served.registry.away = None
        expect(page.locator("#doubt")).to_be_empty()
        expect(page.locator("#freshness")).to_have_attribute("data-freshness", "fresh")

    def test_a_page_opened_while_the_registry_is_away_fills_when_it_is_back(
        self, served: Served, page: Page
    ) -> None:
        job_id = submit(served)
        served.registry.away = RegistryUnavailable("the actor is being restarted")
        page.goto("/training")
        expect(page.locator("#listing")).to_contain_text("The scheduler does not answer")
        served.registry.away = None
        settled(page, job_id, "running")

    def test_the_age_of_a_proof_is_renewed_while_nothing_changes(
        self, served: Served, page: Page, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A run that answers every second is not one that was last heard of when its row was drawn."""
        monkeypatch.setattr(live_rows, "PROOF_EVERY_S", 0.1)
        job_id = submit(served)
        page.goto("/training")
        settled(page, job_id, "running")
        proof = row(page, job_id).locator(".proof time")
        before = proof.get_attribute("datetime") or ""
        expect(proof).not_to_have_attribute("datetime", before)

    def test_a_hidden_page_does_not_listen_and_is_right_when_it_is_seen_again(
        self, served: Served, page: Page
    ) -> None:
        """A browser has six connections for a server: tabs that nobody looks at would use them up."""
        job_id = submit(served)
        page.goto("/training")
        settled(page, job_id, "running")
        hide = "isHidden => { Object.defineProperty(document, 'hidden', {value: isHidden, configurable: true});" \
            " document.dispatchEvent(new Event('visibilitychange')); }"  # fmt: skip
        page.evaluate(hide, True)
        served.call(served.service.commands.act(job_id, JobAction.CANCEL, "ana"))
        other = page.context.new_page()
        other.goto("/training")
        settled(other, job_id, "cancelled")
        settled(page, job_id, "running")
        page.evaluate(hide, False)
        settled(page, job_id, "cancelled")

    def test_whoever_has_scrolled_down_is_not_moved(self, served: Served, page: Page) -> None:
        for number in range(30):
            submit(served, f"job-{number}")
        page.goto("/training")
        expect(page.locator("#freshness")).to_have_attribute("data-freshness", "fresh")
        page.evaluate("scrollTo(0, 600)")
        new = submit(served, "new")
        button = page.get_by_role("button", name="1 new job")
        expect(button).to_be_in_viewport()
        expect(row(page, new)).to_have_count(0)
        button.click()
        expect(row(page, new)).to_be_in_viewport()

    def test_a_browser_that_was_given_the_token_sees_it_all(
        self, browser: Browser, tmp_path: Path, complaints: Complaints
    ) -> None:
        """It sends it as a password, with the stream too; and knows who looks by the name beside it."""
        with scheduler_at(tmp_path / "guarded", TOKEN) as guarded:
            asking = browser.new_context(
                base_url=guarded.url, http_credentials={"username": "ana", "password": TOKEN}
            )
            page = asking.new_page()
            complaints.watch(page)
            page.goto("/training")
            expect(page.get_by_role("link", name="Mine")).to_be_visible()
            job_id = submit(guarded)
            settled(page, job_id, "running")
            asking.close()


class TestMarks:
    def test_marked_jobs_are_cancelled_together_after_a_question(self, served: Served, page: Page) -> None:
        """U5: what would happen is told for each, then done for each."""
        kept, *others = (submit(served, name) for name in ("kept", "one", "two"))
        page.goto("/training")
        for job_id in others:
            row(page, job_id).get_by_role("checkbox").check()
        expect(page.locator("#marked")).to_have_text("2 jobs marked")
        page.locator("#bulk").get_by_role("button", name="Cancel").click()
        dialog = page.get_by_role("dialog")
        for name in ("one", "two"):
            expect(dialog).to_contain_text(name)
        expect(dialog).not_to_contain_text("kept")
        dialog.locator("form[action='/training/act'] button:not([data-close])").first.click()
        for job_id in others:
            settled(page, job_id, "cancelled")
        settled(page, kept, "running")
        page.keyboard.press("Escape")
        expect(page.locator("#bulk")).to_be_hidden()

    def test_the_box_in_the_head_marks_the_whole_page(self, served: Served, page: Page) -> None:
        for _ in range(3):
            submit(served)
        page.goto("/training")
        page.get_by_role("checkbox", name="Mark all on this page").check()
        expect(page.locator("#marked")).to_have_text("3 jobs marked")
        page.get_by_role("button", name="Unmark all").click()
        expect(page.locator("#bulk")).to_be_hidden()


class TestKeyboard:
    def test_jobs_are_found_marked_and_opened_without_a_mouse(self, served: Served, page: Page) -> None:
        """/ j k x Enter Esc and ?, as the help says."""
        for name in ("first", "second", "third"):
            submit(served, name)
        page.goto("/training")
        links = page.locator("#rows .job-link")
        expect(links).to_have_count(3)
        page.keyboard.press("j")
        page.keyboard.press("j")
        expect(links.nth(1)).to_be_focused()
        page.keyboard.press("x")
        expect(page.locator("#rows input").nth(1)).to_be_checked()
        page.keyboard.press("k")
        expect(links.nth(0)).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.locator("#rows input").nth(1)).not_to_be_checked()
        page.keyboard.press("/")
        expect(page.get_by_role("searchbox")).to_be_focused()
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        expect(page.get_by_role("dialog")).to_contain_text("Keyboard")
        page.keyboard.press("Escape")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile(r"/training/monitor\?jobId="))

    def test_r_loads_the_list_anew(self, served: Served, page: Page) -> None:
        page.goto("/training")
        page.get_by_role("button", name="Pause").click()
        job_id = submit(served)
        page.keyboard.press("r")
        expect(row(page, job_id)).to_be_visible()


class TestForEverybody:
    @pytest.mark.parametrize("width", [1280, 390])
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_nothing_hinders_anybody(
        self, width: int, scheme: str, served: Served, context: BrowserContext, page: Page
    ) -> None:
        """WCAG AA by axe, at a desk and on a phone, where nothing is wider than the screen."""
        submit(served, "x" * 100, user="y" * 60, config=AT_ONCE | {"fails": 9})
        running = submit(
            served, config=FOR_LONG | {"progress": {"step": 3, "total_steps": 9, "loss": 0.12345}}
        )
        for _ in range(5):
            submit(served)
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        page.goto("/training")
        settled(page, running, "running")
        row(page, running).get_by_role("checkbox").check()
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")

    def test_without_a_script_the_list_is_whole_and_every_action_is_there(
        self, served: Served, plain: Page
    ) -> None:
        """Nothing is lost when JavaScript is late, or never comes."""
        one, two = submit(served, "one", user="ana"), submit(served, "two", user="ana")
        submit(served, "three", user="bo")
        plain.goto("/training")
        expect(plain.locator("#rows > tr")).to_have_count(3)
        plain.get_by_role("textbox", name="User").fill("ana")
        plain.get_by_role("button", name="Filter").click()
        plain.locator("thead").get_by_role("link", name="Job").click()
        assert names(plain) == ["one", "two"]
        for job_id in (one, two):
            row(plain, job_id).get_by_role("checkbox").check()
        plain.get_by_role("button", name="Cancel").click()
        expect(plain).to_have_url(re.compile(r"/training/confirm\?action=cancel&jobs=.*(%2C|,)"))
        for name in ("one", "two"):
            expect(plain.locator("main")).to_contain_text(name)
