"""The card of a job: what it says in each state, and how each of its actions goes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from scheduler.core.commands import JobAction
from scheduler.core.model import Status
from scheduler.errors import (
    JobNotFound,
    JournalUnwritable,
    NotAllowed,
    RegistryUnavailable,
    SchedulerError,
    VersionConflict,
)
from tests.browser.conftest import Complaints, violations
from tests.browser.jobs import (
    HOSTILE,
    fill,
    monitor,
    pretend,
    refuse,
    seen,
    slow,
    submit,
    submit_until,
    until,
)
from tests.unit.served import Served

SAVES = {"saves": [20, 40, 60], "progress": {"step": 66, "total_steps": 200}}


def heading(page: Page) -> Locator:
    return page.locator("#card-title")


def go(page: Page) -> Locator:
    return page.locator("#card-go")


def told(page: Page) -> Locator:
    return page.locator("#card-answer")


@pytest.fixture
def plain(browser: Browser, served: Served) -> Iterator[Page]:
    """A browser without JavaScript."""
    context = browser.new_context(base_url=served.url, java_script_enabled=False)
    yield context.new_page()
    context.close()


class TestTheRecoveryCard:
    def test_a_job_that_waits_is_told_calmly_why_and_when_it_starts(self, served: Served, page: Page) -> None:
        """U3: the forecast is read before anything is clicked."""
        fill(served)
        submit(served, "first-in-line")
        job_id = submit(served, "second-in-line")
        page.goto(monitor(job_id))
        expect(heading(page)).to_have_text("Waiting in the queue")
        expect(page.locator(".stands")).to_contain_text("Position 2, behind first-in-line")
        expect(page.locator(".stands")).to_contain_text("0 of 4 CPUs are free")
        page.get_by_text("1 ahead of it in the queue").click()
        expect(page.get_by_role("link", name="first-in-line")).to_be_visible()

    @pytest.mark.parametrize(
        ("status", "words"),
        [(Status.PENDING, "Job Stuck in Pending State"), (Status.QUEUED, "Job Stuck in Queue")],
    )
    def test_a_job_that_waits_too_long_is_called_stuck(
        self, status: Status, words: str, served: Served, page: Page
    ) -> None:
        """U3, P7: also without a checkpoint there are both buttons."""
        fill(served)
        job_id = submit(served)
        pretend(served, status=status, overdue=True)
        page.goto(monitor(job_id))
        expect(heading(page)).to_have_text(words)
        expect(go(page)).to_have_text("Start Job Now")
        expect(page.get_by_role("button", name="Mark as Failed")).to_be_visible()
        assert violations(page) == []

    def test_starting_shows_that_it_works_and_then_the_place_in_the_line(
        self, served: Served, page: Page
    ) -> None:
        """U5: loading, then success with the position."""
        fill(served)
        job_id = submit(served)
        gate = slow(served, "act")
        page.goto(monitor(job_id))
        go(page).click()
        expect(go(page)).to_be_disabled()
        expect(page.locator("#card-form .working")).to_be_visible()
        expect(told(page)).to_be_empty()
        gate.set()
        expect(told(page)).to_contain_text("Job queued successfully (position 1)")
        expect(go(page)).to_be_enabled()
        expect(page.locator("#card-form .working")).to_be_hidden()

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (NotAllowed("it is running; use pause and resume"), "It is running; use pause and resume."),
            (JobNotFound.of("x"), "No job 'x' is known here"),
            (VersionConflict("it was changed meanwhile; look again"), "It was changed meanwhile"),
            (JournalUnwritable("the disk is full"), "The disk is full."),
        ],
    )
    def test_a_refusal_is_told_in_the_card(
        self, error: SchedulerError, words: str, served: Served, page: Page
    ) -> None:
        """U5: with what to do about it."""
        fill(served)
        job_id = submit(served)
        refuse(served, "act", error)
        page.goto(monitor(job_id))
        go(page).click()
        expect(told(page).get_by_role("alert")).to_contain_text(words)
        expect(go(page)).to_be_enabled()

    def test_an_answer_that_does_not_come_is_not_called_a_failure(self, served: Served, page: Page) -> None:
        """U5: it may have been done; asking again is offered, and does it once."""
        fill(served)
        job_id = submit(served)
        refuse(served, "act", RegistryUnavailable("the scheduler does not answer"))
        page.goto(monitor(job_id))
        go(page).click()
        expect(told(page)).to_contain_text("It is not known whether it was done.")
        del served.registry.act
        page.get_by_role("button", name="Ask again").click()
        expect(told(page)).to_contain_text("Job queued successfully (position 1)")

    def test_a_network_that_is_lost_is_told_in_the_card(
        self, served: Served, page: Page, complaints: Complaints
    ) -> None:
        """U5: a click without any answer would be repeated blindly."""
        fill(served)
        job_id = submit(served)
        page.goto(monitor(job_id))
        page.route("**/training/act", lambda route: route.abort())
        go(page).click()
        expect(page.locator("#card-form .lost")).to_contain_text("it is not known whether it was done")
        page.unroute("**/training/act")
        go(page).click()
        expect(told(page)).to_contain_text("position 1")
        expect(page.locator("#card-form .lost")).to_be_hidden()
        complaints[:] = [one for one in complaints if "htmx:" not in one]

    def test_giving_up_tells_its_effect_and_asks_first(self, served: Served, page: Page) -> None:
        """U3: one click must not end a job."""
        fill(served)
        job_id = submit(served)
        page.goto(monitor(job_id))
        page.get_by_role("button", name="Mark as Failed").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("It is marked as failed at once; nothing of it runs")
        assert seen(served, job_id).status is Status.QUEUED
        dialog.get_by_role("button", name="Mark as Failed").click()
        expect(dialog).to_contain_text("Mark as Failed: done")
        expect(heading(page)).to_have_text("Job Failed - Restart Required")
        assert seen(served, job_id).status is Status.FAILED


class TestTheResumeCard:
    def test_a_failed_job_offers_its_checkpoints_the_newest_first(self, served: Served, page: Page) -> None:
        """U4: with step, loss and age, and what a click would do."""
        job_id = submit_until(served, Status.FAILED, **SAVES, seconds=0.2, fails=9)
        page.goto(monitor(job_id))
        expect(heading(page)).to_have_text("Job Failed - Restart Required")
        choices = page.get_by_role("radio")
        expect(choices).to_have_count(3)
        expect(choices.first).to_be_checked()
        expect(page.locator(".choices label").first).to_contain_text("step 60, loss 0.05")
        expect(page.locator("#card-effect")).to_contain_text("goes on from checkpoint 1.3 (step 60)")
        choices.nth(2).check()
        expect(page.locator("#card-effect")).to_contain_text("goes on from checkpoint 1.1 (step 20)")
        fill(served)
        go(page).click()
        expect(told(page)).to_contain_text("Job queued successfully (position 1)")
        saved = seen(served, job_id).last_checkpoint
        assert saved and saved.checkpoint == "1.1"

    def test_a_choice_survives_that_the_page_is_renewed(self, served: Served, page: Page) -> None:
        """A person who chose step 20 must not resume from step 60 because a second has passed."""
        job_id = submit_until(served, Status.FAILED, **SAVES, seconds=0.2, fails=9)
        page.goto(monitor(job_id))
        page.get_by_role("radio").nth(1).check()
        expect(page.locator("#card-effect")).to_contain_text("checkpoint 1.2")
        with page.expect_response(re.compile("part=now")):
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        expect(page.get_by_role("radio").nth(1)).to_be_checked()

    def test_without_a_checkpoint_a_restart_is_offered(self, served: Served, page: Page) -> None:
        """U4, P7: the controls were hidden then."""
        job_id = submit_until(served, Status.FAILED, seconds=0.05, fails=9)
        page.goto(monitor(job_id))
        expect(go(page)).to_have_text("Restart")
        expect(page.locator("#card-effect")).to_contain_text("It begins again at the beginning")
        expect(page.get_by_role("radio")).to_have_count(0)
        fill(served)
        go(page).click()
        expect(told(page)).to_contain_text("Job queued successfully (position 1)")

    def test_a_cancelled_job_can_be_restarted(self, served: Served, page: Page) -> None:
        """U4."""
        fill(served)
        job_id = submit(served)
        served.call(served.service.commands.act(job_id, JobAction.CANCEL, "ana"))
        page.goto(monitor(job_id))
        expect(heading(page)).to_have_text("Job Cancelled - Restart Available")
        go(page).click()
        expect(heading(page)).to_have_text("Waiting in the queue")
        expect(told(page)).to_contain_text("Job queued successfully (position 1)")

    def test_a_paused_job_goes_on(self, served: Served, page: Page) -> None:
        """From where it saved; it cannot be failed by hand then, and no button pretends so."""
        job_id = submit_until(served, Status.RUNNING, **SAVES)
        served.call(served.service.commands.act(job_id, JobAction.PAUSE, "ana"))
        until(served, job_id, Status.PAUSED)
        page.goto(monitor(job_id))
        expect(heading(page)).to_have_text("Job Paused - Resume Available")
        expect(page.get_by_role("button", name="Mark as Failed")).to_have_count(0)
        expect(page.locator("#card-effect")).to_contain_text("goes on from checkpoint 1.3 (step 60)")
        go(page).click()
        expect(page.locator("#job-now .status")).to_have_text("running")

    def test_checkpoints_that_cannot_be_listed_hide_no_button(self, served: Served, page: Page) -> None:
        """A storage that is away is no reason to keep a person from acting."""
        job_id = submit_until(served, Status.FAILED, **SAVES, seconds=0.2, fails=9)
        refuse(served, "checkpoints", RegistryUnavailable("the storage does not answer"))
        page.goto(monitor(job_id))
        expect(page.locator(".job-card")).to_contain_text("Its checkpoints cannot be listed")
        expect(go(page)).to_have_text("Resume")


class TestARunningJob:
    @pytest.mark.parametrize(
        ("words", "effect", "after"),
        [
            ("Pause", "stops at its next step and saves", "paused"),
            ("Preempt", "gives its nodes back", "running"),
            ("Cancel", "6 steps are lost, since checkpoint 1.3 (step 60)", "cancelled"),
        ],
    )
    def test_it_can_be_stopped_once_its_effect_was_read(
        self, words: str, effect: str, after: str, served: Served, page: Page
    ) -> None:
        job_id = submit_until(served, Status.RUNNING, **SAVES)
        page.goto(monitor(job_id))
        expect(page.locator(".stands")).to_contain_text("step 66 of 200")
        page.get_by_role("button", name=words, exact=True).click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text(effect)
        dialog.get_by_role("button", name=words, exact=True).click()
        expect(dialog).to_contain_text(f"{words}: done")
        expect(page.locator("#job-now .status")).to_have_text(after)

    def test_a_completed_job_offers_nothing_that_would_be_refused(self, served: Served, page: Page) -> None:
        job_id = submit_until(served, Status.COMPLETED, seconds=0.05)
        page.goto(monitor(job_id))
        expect(heading(page)).to_have_text("Completed")
        expect(page.locator(".job-card button")).to_have_count(0)
        expect(page.get_by_role("link", name="Clone")).to_have_attribute("href", re.compile(job_id))


class TestWithoutJavaScript:
    def test_a_job_is_started_and_given_up(self, served: Served, plain: Page) -> None:
        fill(served)
        job_id = submit(served)
        plain.goto(monitor(job_id))
        go(plain).click()
        expect(plain.locator(".outcome")).to_contain_text("Job queued successfully (position 1)")
        plain.get_by_role("button", name="Close").click()
        plain.get_by_role("button", name="Mark as Failed").click()
        expect(plain.locator(".confirm")).to_contain_text("marked as failed at once")
        plain.get_by_role("button", name="Mark as Failed").click()
        expect(plain.locator(".outcome")).to_contain_text("Mark as Failed: done")
        assert seen(served, job_id).status is Status.FAILED

    def test_the_effect_of_another_checkpoint_is_told_before_it_is_used(
        self, served: Served, plain: Page
    ) -> None:
        job_id = submit_until(served, Status.FAILED, **SAVES, seconds=0.2, fails=9)
        fill(served)
        plain.goto(monitor(job_id))
        plain.get_by_role("radio").nth(2).check()
        go(plain).click()
        expect(plain.locator(".confirm")).to_contain_text("goes on from checkpoint 1.1 (step 20)")
        assert "csrf" not in plain.url
        plain.get_by_role("button", name="Resume from 1.1").click()
        expect(plain.locator(".outcome")).to_contain_text("Job queued successfully (position 1)")


def test_a_hostile_name_stays_a_name(served: Served, page: Page) -> None:
    fill(served)
    job_id = submit(served, HOSTILE, spec={"user": HOSTILE, "labels": {HOSTILE: HOSTILE}})
    page.goto(monitor(job_id))
    expect(page.locator("h1")).to_have_text(HOSTILE)
    page.get_by_role("button", name="Mark as Failed").click()
    expect(page.get_by_role("dialog")).to_contain_text(HOSTILE)
