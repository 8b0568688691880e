"""The page of a job: all that is known of it, live, and complete without a script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from scheduler.api.base import ReasonDocument
from scheduler.api.jobs import AttemptDocument, AttemptPage, ResumptionDocument
from scheduler.core.commands import JobAction
from scheduler.core.model import Status
from scheduler.errors import RegistryUnavailable
from scheduler.testing.clock import NOON
from tests.browser.conftest import violations
from tests.browser.jobs import (
    HOSTILE,
    NO_SUCH_JOB,
    answer,
    curve,
    fill,
    monitor,
    pretend,
    refuse,
    submit,
    submit_until,
    until,
)
from tests.unit.served import Served

RESUMED = {"1": curve(1, 60), "2": [{"phase": "loading", "step": 40, "time": 1.7e9 + 70}, *curve(41, 90)]}
PHASES = {"reserving": 1, "starting": 3, "loading": 6, "training": 0}


def chart(page: Page, name: str) -> Locator:
    return page.locator(f'[data-chart="{name}"]')


def lines(page: Page) -> Locator:
    return page.locator("#logs-lines .line:not(.note):not([hidden])")


@pytest.fixture
def plain(browser: Browser, served: Served) -> Iterator[Page]:
    """A browser without JavaScript."""
    context = browser.new_context(base_url=served.url, java_script_enabled=False)
    yield context.new_page()
    context.close()


def a_long_story(served: Served) -> str:
    """A job that failed once, went on, and runs: with curves, phases, logs and checkpoints."""
    job_id = submit(
        served,
        "a-long-story",
        spec={"user": "ana", "max_failures": 0},
        fails=1,
        seconds=0.3,
        saves=[20, 40],
        says=RESUMED,
        phases=PHASES,
        log="".join(f"line {number}\n" for number in range(300)),
        progress={"step": 60, "total_steps": 200, "loss": 0.5},
    )
    until(served, job_id, Status.FAILED)
    return job_id


class TestWhatIsShown:
    def test_its_state_has_a_mark_with_the_age_of_its_proof(self, served: Served, page: Page) -> None:
        """A status without what backs it is a claim."""
        job_id = submit_until(served, Status.RUNNING, progress={"step": 7, "total_steps": 9})
        page.goto(monitor(job_id))
        expect(page.locator(".proof")).to_contain_text(re.compile(r"✓\s*verified \d+ s ago\s*running"))
        expect(page.locator(".job-facts")).to_contain_text("step 7")

    def test_the_history_says_who_did_what_and_why(self, served: Served, page: Page) -> None:
        job_id = submit_until(served, Status.RUNNING, spec={"user": "ana"})
        served.call(served.service.commands.act(job_id, JobAction.CANCEL, "Berta"))
        until(served, job_id, Status.CANCELLED)
        page.goto(monitor(job_id))
        events = page.locator(".timeline li")
        expect(events.first).to_contain_text("running → cancelled")
        expect(page.locator(".timeline")).to_contain_text("by Berta")
        expect(events.last).to_contain_text("by ana")

    def test_an_attempt_says_why_it_ended_and_what_was_seen(self, served: Served, page: Page) -> None:
        job_id = a_long_story(served)
        page.goto(monitor(job_id))
        attempt = page.locator("#attempt-1")
        expect(attempt).to_contain_text("ValueError: a bad batch.")
        expect(attempt.locator("pre")).to_be_hidden()
        attempt.get_by_text("What was seen").click()
        expect(attempt.locator("pre")).to_have_text("Traceback: ...")

    def test_what_a_run_lost_and_left_is_told(self, served: Served, page: Page) -> None:
        """Where it went on, what no checkpoint holds, and the stacks and log ends of each rank."""
        job_id = submit_until(served, Status.RUNNING)
        certificate = ResumptionDocument(checkpoint="1.2", step=40, differs=["the dataset has changed"])
        pretend(served, resumed=certificate)
        lost = AttemptDocument(
            attempt=2,
            started_at=NOON,
            ended_at=NOON,
            ending="lost",
            cause="infrastructure",
            reason=ReasonDocument(code="hung", message="no step for 600 s", detail=None),
            resumed=certificate,
            last_step=66,
            steps_lost=6,
            nodes=["node-1", "node-1", "node-2"],
            evidence={"stacks": {"0": "in allreduce"}, "logs": {"0": "step 66", "1": HOSTILE}},
        )
        answer(served, "attempts", AttemptPage(job_id=job_id, attempts=[lost]))
        page.goto(monitor(job_id))
        attempt = page.locator("#attempt-2")
        for words in (
            "lost (cause: infrastructure)",
            "No step for 600 s.",
            "went on from checkpoint 1.2; reached step 66; 6 steps lost; on node-1, node-2 (3 ranks)",
        ):
            expect(attempt).to_contain_text(words)
        attempt.get_by_text("Stacks before its end").click()
        expect(attempt.get_by_label("stacks of rank 0")).to_have_text("in allreduce")
        attempt.get_by_text("The end of its logs").click()
        expect(attempt.get_by_label("logs of rank 1")).to_have_text(HOSTILE)
        facts = page.locator(".job-facts")
        expect(facts).to_contain_text("from checkpoint 1.2: not exactly")
        facts.get_by_text("What was compared").click()
        expect(facts).to_contain_text("differs: the dataset has changed")

    def test_each_checkpoint_can_be_chosen(self, served: Served, page: Page) -> None:
        job_id = a_long_story(served)
        page.goto(monitor(job_id))
        newest = page.locator("#checkpoint-1-2")
        expect(newest).to_contain_text("next")
        page.locator("#checkpoint-1-1").get_by_role("button", name="Resume from 1.1").click()
        expect(page.get_by_role("dialog")).to_contain_text("goes on from checkpoint 1.1 (step 20)")

    def test_the_phases_of_a_start_are_a_bar_of_time(self, served: Served, page: Page) -> None:
        """A start that is slow is slow somewhere."""
        job_id = submit_until(served, Status.RUNNING, phases=PHASES)
        page.goto(monitor(job_id))
        expect(page.get_by_role("heading", name="Its start: 10.0 s")).to_be_visible()
        expect(page.locator(".start-bar rect")).to_have_count(3)
        widths = [float(one.get_attribute("width") or 0) for one in page.locator(".start-bar rect").all()]
        assert widths == [100, 300, 600]
        expect(page.locator(".phases")).to_contain_text("loading 6.0 s")

    def test_the_spec_is_shown_as_submitted_and_as_run_without_its_secrets(
        self, served: Served, page: Page
    ) -> None:
        job_id = submit_until(
            served,
            Status.RUNNING,
            spec={"labels": {"wandb_api_key": "label-secret"}, "priority": 7},
            api_key="sk-config-secret-1234567890",
            data="https://ana:url-secret@host/data",
            env=["HF_TOKEN=env-secret"],
        )
        page.goto(monitor(job_id))
        submitted = page.get_by_label("The spec as submitted")
        expect(submitted).to_contain_text('"priority": 7')
        expect(submitted).not_to_contain_text("max_failures")
        page.get_by_text("As run, with every default").click()
        expect(page.get_by_label("The spec as run")).to_contain_text('"max_failures": 0')
        content = page.content()
        for secret in ("label-secret", "config-secret", "url-secret", "env-secret"):
            assert secret not in content

    def test_what_the_model_writes_is_shown_as_text(self, served: Served, page: Page) -> None:
        told = {"step": 5, "loss": 1.0, "samples": [{"prompt": HOSTILE, "text": f"one\n{HOSTILE}"}]}
        job_id = submit_until(served, Status.RUNNING, says=[told])
        page.goto(monitor(job_id))
        expect(chart(page, "Loss")).to_be_visible()
        expect(page.locator("#samples .prompt")).to_have_text(HOSTILE)
        expect(page.locator("#samples .said")).to_contain_text(HOSTILE)

    def test_the_dashboard_is_linked_only_where_it_is_known(self, served: Served, page: Page) -> None:
        page.goto(monitor(submit_until(served, Status.RUNNING)))
        expect(page.get_by_role("link", name="Clone")).to_be_visible()
        expect(page.get_by_role("link", name="Ray dashboard")).to_have_count(0)


class TestCharts:
    def test_each_has_its_points_and_its_resumptions(self, served: Served, page: Page) -> None:
        """What an attempt did again is a line of its own, so that the loss does not jump back."""
        job_id = a_long_story(served)
        served.call(served.service.commands.act(job_id, JobAction.RESUME, "ana"))
        until(served, job_id, Status.COMPLETED)
        page.goto(monitor(job_id))
        loss = chart(page, "Loss")
        expect(loss).to_have_attribute("data-points", "110")
        expect(loss).to_have_attribute("data-resumptions", "1")
        expect(loss).to_have_attribute("data-series", "2")
        expect(loss.locator(".u-legend")).to_contain_text("loss, attempt 1, repeated")
        for name in ("Learning rate", "Throughput"):
            expect(chart(page, name)).to_have_attribute("data-points", "110")

    def test_values_are_told_where_the_pointer_is(self, served: Served, page: Page) -> None:
        job_id = submit_until(served, Status.RUNNING, says=curve(1, 60))
        page.goto(monitor(job_id))
        chart(page, "Loss").locator(".u-over").hover()
        expect(chart(page, "Loss").locator(".u-legend")).to_contain_text(re.compile(r"step *(30|31)"))

    def test_it_zooms_by_dragging_and_out_by_a_double_click(self, served: Served, page: Page) -> None:
        job_id = submit_until(served, Status.RUNNING, says=curve(1, 60))
        page.goto(monitor(job_id))
        over = chart(page, "Loss").locator(".u-over")
        over.scroll_into_view_if_needed()
        box = over.bounding_box()
        assert box
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] * 0.25, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.5, middle, steps=5)
        page.mouse.up()
        # A third of the way into what is left of 1 to 60 after the zoom to about 16 to 30.
        page.mouse.move(box["x"] + box["width"] * 0.98, middle)
        legend = chart(page, "Loss").locator(".u-legend")
        expect(legend).to_contain_text(re.compile(r"step *(29|30|31)"))
        over.dblclick()
        page.mouse.move(box["x"] + box["width"] * 0.97, middle)
        expect(legend).to_contain_text(re.compile(r"step *(57|58|59|60)"))

    def test_time_and_a_log_scale_can_be_chosen(self, served: Served, page: Page) -> None:
        job_id = submit_until(served, Status.RUNNING, says=curve(1, 60))
        page.goto(monitor(job_id))
        page.get_by_label("Along").select_option("time")
        expect(chart(page, "Loss").locator(".u-legend")).to_contain_text("time")
        page.get_by_label("Log scale").check()
        expect(chart(page, "Loss")).to_have_attribute("data-points", "60")

    def test_the_numbers_are_there_as_a_table(self, served: Served, page: Page) -> None:
        job_id = submit_until(served, Status.RUNNING, says=curve(1, 60))
        page.goto(monitor(job_id))
        expect(chart(page, "Loss")).to_be_visible()
        page.get_by_text("The numbers as a table").click()
        rows = page.locator("#numbers-table tbody tr")
        expect(rows).to_have_count(60)
        expect(rows.last).to_contain_text("0.66939")

    def test_a_loop_that_says_nothing_is_no_error(self, served: Served, page: Page) -> None:
        page.goto(monitor(submit_until(served, Status.RUNNING)))
        expect(page.locator("#charts")).to_contain_text("The loop has not reported any numbers yet.")


class TestLive:
    def test_what_was_unfolded_stays_so(self, served: Served, page: Page) -> None:
        """Else nobody could read while a job runs."""
        fill(served)
        first, _, job_id = (submit(served, f"waits-{number}") for number in range(3))
        page.goto(monitor(job_id))
        page.get_by_text("2 ahead of it in the queue").click()
        served.call(served.service.commands.act(first, JobAction.CANCEL, "ana"))
        expect(page.get_by_text("1 ahead of it in the queue")).to_be_visible()
        expect(page.get_by_role("link", name="waits-1")).to_be_visible()

    def test_a_change_comes_by_itself(self, served: Served, page: Page) -> None:
        job_id = submit_until(served, Status.RUNNING, progress={"step": 1, "total_steps": 9})
        page.goto(monitor(job_id))
        expect(page.locator(".stands")).to_contain_text("step 1 of 9")
        served.runner.tell(job_id, step=5, total_steps=9)
        expect(page.locator(".stands")).to_contain_text("step 5 of 9")
        served.call(served.service.commands.act(job_id, JobAction.CANCEL, "ana"))
        expect(page.locator("#job-now .status")).to_have_text("cancelled")
        expect(page.locator(".timeline")).to_contain_text("Cancelled by ana")
        expect(page).to_have_title("a-job: cancelled")

    def test_it_says_when_the_scheduler_is_not_heard(self, served: Served, page: Page) -> None:
        """An old page that looks new would be believed."""
        job_id = submit_until(served, Status.RUNNING)
        page.goto(monitor(job_id))
        fresh = page.locator("[data-freshness]")
        expect(fresh).to_have_attribute("data-freshness", "fresh")
        served.registry.away = RegistryUnavailable("the scheduler is being restarted")
        expect(fresh).to_have_attribute("data-freshness", "stale")
        expect(fresh).to_contain_text("Not verified: the scheduler is being restarted")
        served.registry.away = None
        expect(fresh).to_have_attribute("data-freshness", "fresh")


class TestLogs:
    def test_they_are_followed_live(self, served: Served, page: Page) -> None:
        job_id = submit_until(served, Status.RUNNING, log="first\n")
        page.goto(monitor(job_id))
        expect(lines(page).last).to_have_text("first")
        served.runner.write(job_id, "second\nthi")
        expect(lines(page).nth(2)).to_have_text("second")
        expect(lines(page).last).to_have_text("thi")
        served.runner.write(job_id, "rd\n")
        expect(lines(page).last).to_have_text("third")
        expect(lines(page)).to_have_count(4)

    def test_who_scrolls_up_is_left_there(self, served: Served, page: Page) -> None:
        job_id = submit_until(served, Status.RUNNING, log="".join(f"line {n}\n" for n in range(300)))
        page.goto(monitor(job_id))
        page.locator("#logs-lines").scroll_into_view_if_needed()
        expect(lines(page).last).to_be_in_viewport()
        page.locator("#logs-lines").evaluate("(log) => { log.scrollTop = 0; }")
        expect(page.get_by_label("Follow")).not_to_be_checked()
        served.runner.write(job_id, "newest\n")
        expect(lines(page).last).to_have_text("newest")
        assert page.locator("#logs-lines").evaluate("(log) => log.scrollTop") == 0
        page.get_by_label("Follow").check()
        expect(lines(page).last).to_be_in_viewport()

    def test_only_lines_with_the_words_are_shown(self, served: Served, page: Page) -> None:
        job_id = submit_until(served, Status.RUNNING, log="one apple\ntwo pears\nthree APPLES\n")
        page.goto(monitor(job_id))
        expect(lines(page)).to_have_count(4)
        page.get_by_label("Find").fill("apple")
        expect(lines(page)).to_have_text(["one apple", "three APPLES"])
        expect(page.locator("#logs-state")).to_have_text("2 of 4 lines")
        served.runner.write(job_id, "a plum\nan apple\n")
        expect(lines(page)).to_have_text(["one apple", "three APPLES", "an apple"])

    def test_each_rank_and_attempt_has_its_own(self, served: Served, page: Page) -> None:
        job_id = submit(
            served, spec={"max_failures": 1, "resources": {"num_ranks": 2}}, fails=1, seconds=0.3, log="x\n"
        )
        until(served, job_id, Status.COMPLETED)
        page.goto(monitor(job_id))
        expect(lines(page).first).to_have_text("attempt 2")
        page.get_by_label("Attempt", exact=True).select_option("1")
        expect(lines(page).first).to_have_text("attempt 1")
        page.get_by_label("Rank").select_option("1")
        expect(lines(page)).to_have_text(["attempt 1"])

    def test_the_whole_log_can_be_downloaded(self, served: Served, page: Page, tmp_path: Path) -> None:
        job_id = submit_until(served, Status.RUNNING, log="".join(f"line {n}\n" for n in range(9000)))
        page.goto(monitor(job_id))
        with page.expect_download() as download:
            page.get_by_role("link", name="Download").click()
        assert download.value.suggested_filename == f"{job_id[:8]}-attempt-1-rank-0.log"
        download.value.save_as(tmp_path / "log")
        assert (tmp_path / "log").read_text().endswith("line 8999\n")

    def test_the_page_holds_no_more_than_a_browser_likes(self, served: Served, page: Page) -> None:
        job_id = submit_until(served, Status.RUNNING, log="start\n")
        page.goto(monitor(job_id))
        expect(lines(page).last).to_have_text("start")
        served.runner.write(job_id, "".join(f"{number}\n" for number in range(12_000)))
        expect(lines(page).last).to_have_text("11999")
        expect(page.locator("#logs-lines")).to_have_attribute("data-lines", "5000")

    def test_a_job_that_goes_on_is_followed_again(self, served: Served, page: Page) -> None:
        job_id = submit_until(served, Status.FAILED, fails=1, seconds=0.2)
        page.goto(monitor(job_id))
        expect(page.locator("#logs-state")).to_contain_text("ended")
        served.call(served.service.commands.act(job_id, JobAction.RESTART, "ana"))
        expect(page.locator("#logs-lines")).to_contain_text("attempt 2")

    def test_what_a_run_prints_stays_text(self, served: Served, page: Page) -> None:
        page.goto(monitor(submit_until(served, Status.RUNNING, log=f"{HOSTILE}\n")))
        expect(lines(page).last).to_have_text(HOSTILE)


class TestDoubt:
    def test_a_job_that_only_the_database_knows_says_so(self, served: Served, page: Page) -> None:
        job_id = submit_until(served, Status.RUNNING)
        pretend(served, verified=False, evidence="as the database has it, written 9 s ago")
        for method in ("explain", "events", "attempts", "checkpoints", "metrics"):
            refuse(served, method, RegistryUnavailable("the registry does not answer"))
        page.goto(monitor(job_id))
        expect(page.locator("#job-now").get_by_role("alert")).to_contain_text("Not verified.")
        expect(page.locator(".proof")).to_contain_text("not verified")
        expect(page.locator("#history")).to_contain_text("It cannot be read: The registry does not answer.")
        expect(page.locator("#attempts")).to_contain_text("The registry does not answer.")
        expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_visible()
        assert violations(page) == []

    @pytest.mark.parametrize(
        ("job_id", "status", "words"),
        [
            (NO_SUCH_JOB, 404, "is known here"),
            ("nonsense", 422, "is not a job id"),
            ("", 422, "is not a job id"),
        ],
    )
    def test_a_job_that_is_not_there_is_a_page_too(
        self, job_id: str, status: int, words: str, page: Page
    ) -> None:
        response = page.goto(monitor(job_id))
        assert response and response.status == status
        expect(page.get_by_role("alert")).to_contain_text(words)
        expect(page.get_by_role("link", name="All jobs")).to_be_visible()

    @pytest.mark.parametrize("more", ["rank=x", "attempt=9", "rank=-1"])
    def test_a_log_that_is_not_there_hides_nothing_else(self, more: str, served: Served, page: Page) -> None:
        job_id = submit_until(served, Status.RUNNING)
        response = page.goto(f"{monitor(job_id)}&{more}")
        assert response and response.status in (200, 422)
        expect(page.locator("main")).not_to_be_empty()


class TestForEverybody:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [1280, 390])
    def test_axe_finds_nothing_and_nothing_is_cut_off(
        self, width: int, scheme: str, served: Served, page: Page
    ) -> None:
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme)  # pyright: ignore[reportArgumentType]
        job_id = a_long_story(served)
        page.goto(monitor(job_id))
        expect(chart(page, "Loss")).to_be_visible()
        expect(page.locator("#logs-state")).to_contain_text("ended")
        for summary in page.locator("main summary").all():
            if summary.is_visible():
                summary.click()
        expect(page.get_by_label("The spec as run")).to_be_visible()
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    def test_the_curves_follow_the_theme(self, served: Served, page: Page) -> None:
        """A canvas knows no variables: black on black would be what is left."""
        job_id = a_long_story(served)
        page.goto(monitor(job_id))
        expect(chart(page, "Loss")).to_be_visible()
        drawn = "document.querySelector('[data-chart=Loss] canvas').toDataURL()"
        before = page.evaluate(drawn)
        for _ in range(2):
            page.get_by_role("button", name="Theme").click()
        page.wait_for_function(f"(before) => {drawn} !== before", arg=before)
        expect(chart(page, "Loss")).to_have_attribute("data-points", "60")

    def test_without_javascript_the_page_is_whole(self, served: Served, plain: Page) -> None:
        job_id = a_long_story(served)
        plain.goto(monitor(job_id))
        expect(plain.locator("#charts svg polyline")).to_be_visible()
        expect(plain.locator("#charts figcaption")).to_contain_text("Loss from")
        expect(plain.locator("#logs pre")).to_contain_text("line 299")
        expect(plain.locator(".timeline li").first).to_contain_text("failed")
        plain.get_by_text("As run, with every default").click()
        plain.get_by_role("link", name="Show it on a page of its own").click()
        expect(plain.get_by_label("The spec as run")).to_contain_text("max_failures")

    def test_without_javascript_a_log_is_chosen(self, served: Served, plain: Page) -> None:
        job_id = submit(served, spec={"max_failures": 1}, fails=1, seconds=0.1)
        until(served, job_id, Status.COMPLETED)
        plain.goto(monitor(job_id))
        plain.get_by_label("Attempt", exact=True).select_option("1")
        plain.get_by_role("button", name="Show").click()
        expect(plain.locator("#logs pre")).to_contain_text("attempt 1")


def test_a_hundred_checkpoints_leave_the_card_short(served: Served, page: Page) -> None:
    job_id = submit_until(served, Status.FAILED, saves=list(range(1, 101)), fails=9, seconds=0.3)
    page.goto(monitor(job_id))
    expect(page.get_by_role("radio")).to_have_count(10)
    expect(page.get_by_role("link", name="90 older ones")).to_be_visible()
