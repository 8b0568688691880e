"""Asking before an action, and doing it: for one job and for many, in the dialog and on pages of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from scheduler.core.model import Status
from scheduler.errors import RegistryUnavailable
from tests.browser.conftest import Complaints, violations
from tests.browser.jobs import NO_SUCH_JOB, fill, monitor, refuse, seen, submit, submit_until
from tests.unit.served import Served, scheduler_at


def confirm(action: str, *job_ids: str, **more: str) -> str:
    rest = "".join(f"&{name}={value}" for name, value in more.items())
    return f"/training/confirm?action={action}&jobs={','.join(job_ids)}{rest}"


class TestTheDialog:
    @pytest.mark.parametrize("how", ["Escape", "Leave it as it is"])
    def test_it_closes_and_gives_the_focus_back(self, how: str, served: Served, page: Page) -> None:
        """Who works by keyboard goes on where they were; nothing was done."""
        job_id = submit_until(served, Status.RUNNING)
        page.goto(monitor(job_id))
        button = page.get_by_role("button", name="Cancel", exact=True)
        button.focus()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        if how == "Escape":
            page.keyboard.press("Escape")
        else:
            dialog.get_by_role("button", name=how).click()
        expect(dialog).to_be_hidden()
        expect(button).to_be_focused()
        assert seen(served, job_id).status is Status.RUNNING

    def test_the_same_key_twice_ends_no_job(self, served: Served, page: Page) -> None:
        """The focus is on the question, not on the button that does it."""
        job_id = submit_until(served, Status.RUNNING)
        page.goto(monitor(job_id))
        page.get_by_role("button", name="Cancel", exact=True).press("Enter")
        expect(page.get_by_role("heading", name="Cancel a-job?")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_contain_text("Its processes are ended at once")
        assert seen(served, job_id).stop is None

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_axe_finds_nothing_in_it(self, scheme: str, served: Served, page: Page) -> None:
        page.emulate_media(color_scheme=scheme)  # pyright: ignore[reportArgumentType]
        job_id = submit_until(served, Status.RUNNING)
        page.goto(monitor(job_id))
        page.get_by_role("button", name="Cancel", exact=True).click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert violations(page) == []

    def test_what_becomes_of_it_is_read_out(self, served: Served, page: Page) -> None:
        """The focus goes to the answer, not to the top of the page."""
        job_id = submit_until(served, Status.RUNNING)
        page.goto(monitor(job_id))
        page.get_by_role("button", name="Cancel", exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel", exact=True).click()
        expect(page.get_by_role("heading", name="Cancel: done")).to_be_focused()


class TestManyJobs:
    def test_the_effect_on_each_is_told_and_then_what_became_of_it(self, served: Served, page: Page) -> None:
        """What one refuses hinders no other."""
        running = submit_until(served, Status.RUNNING, "runs")
        over = submit_until(served, Status.COMPLETED, "is-over", seconds=0.05)
        page.goto(confirm("cancel", running, over))
        expect(page.get_by_role("heading", name="Cancel 2 jobs?")).to_be_visible()
        effects = page.locator(".effects li")
        expect(effects.nth(0)).to_contain_text("runs: Its processes are ended at once")
        expect(effects.nth(1)).to_contain_text("is-over: Not possible.")
        assert violations(page) == []
        page.get_by_role("button", name="Cancel", exact=True).click()
        expect(page.get_by_role("heading", name="Cancel: done for 1 of 2 jobs")).to_be_visible()
        expect(effects.nth(1)).to_contain_text("Submit it again as a new job.")

    def test_beyond_twenty_they_are_counted(self, served: Served, page: Page) -> None:
        """Each forecast costs the scheduler a while; 500 of them would keep it from its work."""
        fill(served)
        jobs = [submit(served, f"job-{number}") for number in range(23)]
        page.goto(confirm("fail", *jobs))
        expect(page.locator(".effects li")).to_have_count(21)
        expect(page.locator(".effects li").last).to_have_text("And 3 more jobs.")
        page.get_by_role("button", name="Mark as Failed").click()
        expect(page.get_by_role("heading", name="Mark as Failed: done for 23 of 23 jobs")).to_be_visible()
        assert {seen(served, job_id).status for job_id in jobs} == {Status.FAILED}

    def test_only_those_without_an_answer_are_asked_again(self, served: Served, page: Page) -> None:
        """The others were done, and may have moved on since."""
        fill(served)
        first, second = submit(served, "first"), submit(served, "second")
        real = served.registry.act

        async def half(job_id: str, *asked: Any) -> object:
            if job_id == second:
                raise RegistryUnavailable("the scheduler does not answer")
            return await real(job_id, *asked)

        served.registry.act = half
        page.goto(confirm("cancel", first, second))
        page.get_by_role("button", name="Cancel", exact=True).click()
        expect(page.get_by_role("heading", name="done for 1 of 2")).to_be_visible()
        del served.registry.act
        page.get_by_role("button", name="Ask again").click()
        expect(page.get_by_role("heading", name="Cancel: done", exact=True)).to_be_visible()
        assert seen(served, second).status is Status.CANCELLED


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("path", "words"),
        [
            (confirm("explode", NO_SUCH_JOB), "there is no action 'explode'; known are: cancel, pause"),
            (confirm("cancel"), "0 jobs are marked"),
            (confirm("cancel", "not-an-id"), "is not a job id"),
            (confirm("cancel", NO_SUCH_JOB, checkpoint="1.1"), "cannot be used"),
            (confirm("resume", NO_SUCH_JOB, checkpoint="one"), "cannot be used"),
        ],
    )
    def test_a_link_that_says_nothing_sensible(self, path: str, words: str, page: Page) -> None:
        answer = page.goto(path)
        assert answer and answer.status == 422
        expect(page.locator(".outcome")).to_contain_text(words)
        expect(page.get_by_role("heading", name="Nothing was done")).to_be_visible()

    def test_a_job_that_is_not_known(self, page: Page) -> None:
        page.goto(confirm("cancel", NO_SUCH_JOB))
        expect(page.locator(".effects")).to_contain_text("is known here")
        page.get_by_role("button", name="Cancel", exact=True).click()
        expect(page.locator(".outcome")).to_contain_text("is known here")

    def test_while_the_registry_is_away_it_is_told_and_asked_again(self, served: Served, page: Page) -> None:
        """The page stays of use: the same form does it as soon as there is an answer."""
        job_id = submit_until(served, Status.RUNNING)
        served.registry.away = RegistryUnavailable("the scheduler is being restarted")
        page.goto(confirm("cancel", job_id))
        expect(page.locator(".effects")).to_contain_text("What would happen is not known")
        page.get_by_role("button", name="Cancel", exact=True).click()
        expect(page.locator(".outcome")).to_contain_text("It is not known whether it was done.")
        served.registry.away = None
        page.get_by_role("button", name="Ask again").click()
        expect(page.get_by_role("heading", name="Cancel: done")).to_be_visible()

    def test_an_effect_that_cannot_be_told_keeps_nobody_from_acting(self, served: Served, page: Page) -> None:
        job_id = submit_until(served, Status.RUNNING)
        refuse(served, "effect", RegistryUnavailable("too busy"))
        page.goto(confirm("cancel", job_id))
        page.get_by_role("button", name="Cancel", exact=True).click()
        expect(page.get_by_role("heading", name="Cancel: done")).to_be_visible()

    def test_a_network_that_is_lost_is_told_in_the_dialog(
        self, served: Served, page: Page, complaints: Complaints
    ) -> None:
        job_id = submit_until(served, Status.RUNNING)
        page.goto(monitor(job_id))
        page.get_by_role("button", name="Cancel", exact=True).click()
        page.route("**/training/act", lambda route: route.abort())
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Cancel", exact=True).click()
        expect(dialog.get_by_role("alert")).to_contain_text("the server cannot be reached")
        complaints[:] = [one for one in complaints if "htmx:" not in one]


class TestForgery:
    def test_a_form_without_the_proof_of_our_page_does_nothing(self, served: Served) -> None:
        job_id = submit_until(served, Status.RUNNING)
        form = {"action": "cancel", "jobs": job_id}
        with httpx.Client(base_url=served.url) as client:
            client.get("/training")
            for csrf in ({}, {"csrf": ""}, {"csrf": "guess"}):
                answer = client.post("/training/act", data=form | csrf)
                assert answer.status_code == 403
                assert "does not come from a page of this server" in answer.text
        assert seen(served, job_id).status is Status.RUNNING

    def test_a_form_of_another_site_does_nothing(self, served: Served) -> None:
        """Also with the right proof, wherever it was read."""
        job_id = submit_until(served, Status.RUNNING)
        with httpx.Client(base_url=served.url) as client:
            client.get("/training")
            form = {"action": "cancel", "jobs": job_id, "csrf": client.cookies["scheduler_csrf"]}
            for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
                assert client.post("/training/act", data=form, headers=headers).status_code == 403
        assert seen(served, job_id).status is Status.RUNNING

    def test_a_link_alone_does_nothing(self, served: Served) -> None:
        """Whatever a mail makes somebody click."""
        job_id = submit_until(served, Status.RUNNING)
        with httpx.Client(base_url=served.url) as client:
            assert client.get(confirm("cancel", job_id)).status_code == 200
            assert client.get(f"/training/act?action=cancel&jobs={job_id}").status_code == 404
        assert seen(served, job_id).status is Status.RUNNING

    def test_nobody_is_sent_elsewhere_after_it(self, served: Served, page: Page) -> None:
        job_id = submit_until(served, Status.RUNNING)
        page.goto(confirm("cancel", job_id, back="https://evil.example/training"))
        expect(page.get_by_role("button", name="Leave it as it is")).to_have_attribute("href", "/training")


def test_who_did_it_stands_in_the_history(served: Served, page: Page) -> None:
    """Not `page`, when they have said who they are."""
    job_id = submit_until(served, Status.RUNNING)
    page.goto("/training")
    page.get_by_text("Who are you?").click()
    page.get_by_label("Your name").fill("Ana María")
    page.get_by_role("button", name="Keep").click()
    page.goto(confirm("cancel", job_id))
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.locator(".outcome")).to_contain_text("Ana María")


def test_acting_works_for_whoever_signed_in_with_the_token(tmp_path: Path, browser: Browser) -> None:
    """A browser knows the password of the pages alone: nothing on them may ask the API."""
    with scheduler_at(tmp_path, token="correct-horse") as served:
        job_id = submit_until(served, Status.RUNNING, log="a line\n", says=[{"step": 1, "loss": 2.0}])
        context = browser.new_context(
            base_url=served.url, http_credentials={"username": "ana", "password": "correct-horse"}
        )
        page = context.new_page()
        page.goto(monitor(job_id))
        expect(page.locator("#logs-lines")).to_contain_text("a line")
        expect(page.locator('[data-chart="Loss"]')).to_have_attribute("data-points", "1")
        expect(page.locator("[data-freshness]")).to_have_attribute("data-freshness", "fresh")
        page.get_by_role("button", name="Cancel", exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel", exact=True).click()
        expect(page.get_by_role("dialog")).to_contain_text("ana asked to cancel it")
        context.close()
