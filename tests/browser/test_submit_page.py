"""The form that submits a job, as a person fills it in."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.conftest import violations
from tests.unit.served import LOOP, Served

SECRET = "hf-very-secret"


def jobs(served: Served) -> list[dict[str, Any]]:
    return httpx.get(f"{served.url}/api/training/jobs").json()["jobs"]


def submit(served: Served, **fields: Any) -> str:
    answer = httpx.post(f"{served.url}/api/training", json={"loop": LOOP, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()["job_id"]


def write_own_loop(page: Page, **config: Any) -> None:
    page.get_by_label("or your own").fill(LOOP)
    page.get_by_label("or your own").press("Tab")
    page.locator("textarea[name='config']").fill(json.dumps(config))


def test_a_job_is_checked_and_then_submitted(page: Page, served: Served) -> None:
    """U1: what the form says is what the scheduler gets, and a check submits nothing."""
    page.goto("/training/submit")
    write_own_loop(page, seconds=60)
    page.get_by_label("name", exact=True).fill("from the page")
    page.get_by_label("num ranks").fill("2")
    page.get_by_label("labels").fill("team=nlp")
    page.get_by_role("button", name="Check").click()
    expect(page.locator("#plan")).to_contain_text("It would be accepted")
    assert jobs(served) == []
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url(re.compile("/training/monitor"))
    expect(page.get_by_role("heading", level=1)).to_contain_text("from the page")
    spec = jobs(served)[0]["spec"]
    assert spec["config"] == {"seconds": 60}
    assert spec["resources"]["num_ranks"] == 2
    assert spec["labels"] == {"team": "nlp"}


def test_each_wrong_field_says_what_is_wrong_with_it(page: Page, served: Served) -> None:
    """U5: a refusal at the top of a long form leaves a person searching."""
    page.goto("/training/submit")
    page.get_by_label("One that is here").select_option("sft")
    page.get_by_label("num ranks").fill("3x")
    page.get_by_label("priority").fill("5000")
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_role("alert")).to_contain_text("Not accepted")
    for name in ("num ranks", "priority"):
        expect(page.get_by_label(name)).to_have_attribute("aria-invalid", "true")
    assert page.get_by_label("num ranks").input_value() == "3x"
    page.get_by_label("num ranks").fill("1")
    page.get_by_label("priority").fill("")
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_label("model (required)")).to_have_attribute("aria-invalid", "true")
    assert jobs(served) == []


def test_another_loop_has_other_fields(page: Page, served: Served) -> None:
    """The form is that of the loop's schema."""
    page.goto("/training/submit?loop=sft")
    expect(page.get_by_label("dataset (required)", exact=True)).to_be_visible()
    page.get_by_label("name", exact=True).fill("kept")
    page.get_by_label("One that is here").select_option("torch_ddp")
    expect(page.get_by_label("dataset (required)", exact=True)).to_have_count(0)
    expect(page.get_by_label("name", exact=True)).to_have_value("kept")


def test_what_is_typed_while_another_loop_is_fetched_stays(page: Page, served: Served) -> None:
    """The answer of a slow server must not wipe out what a quick person wrote; and a loop that was chosen is taken."""
    page.goto("/training/submit")
    write_own_loop(page)
    expect(page.locator("textarea[name='config']")).to_be_visible()
    held: list[Route] = []
    page.route("**/training/submit", lambda route: held.append(route))
    page.get_by_label("One that is here").select_option("torch_ddp")
    page.get_by_label("num ranks").fill("2")
    page.get_by_label("name", exact=True).fill("typed quickly")
    held[0].continue_()
    expect(page.get_by_label("or your own")).to_have_value("")
    expect(page.locator("textarea[name='config']")).to_have_count(0)
    expect(page.get_by_label("num ranks")).to_have_value("2")
    expect(page.get_by_label("name", exact=True)).to_have_value("typed quickly")


def test_a_clone_has_everything_but_its_secrets_which_are_typed_anew(page: Page, served: Served) -> None:
    """D: whoever may submit could clone a job into a loop that prints them; with dots for a token it would fail."""
    first = submit(served, name="first", config={"seconds": 0.01, "hf_token": SECRET}, labels={"a": "b"})
    page.goto(f"/training/submit?source={first}")
    assert SECRET not in page.content()
    expect(page.get_by_label("name", exact=True)).to_have_value("first")
    page.get_by_label("name", exact=True).fill("second")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("alert")).to_contain_text("config.hf_token: is covered")
    config = page.locator("textarea[name='config']")
    config.fill(config.input_value().replace("••••••", "another-secret"))
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url(re.compile("/training/monitor"))
    newest = next(job for job in jobs(served) if job["name"] == "second")
    assert newest["spec"]["config"] == {"seconds": 0.01, "hf_token": "••••••"}
    assert newest["spec"]["labels"] == {"a": "b"}
    runs = {run.spec.name: run.spec.config for run in served.runner.runs.values()}
    assert runs["second"]["hf_token"] == "another-secret"


def test_a_form_that_is_sent_twice_submits_one_job(page: Page, served: Served) -> None:
    """A double click, or a page that is sent again, must not cost GPUs twice."""
    page.goto("/training/submit")
    write_own_loop(page, seconds=60)
    expect(page.locator("textarea[name='config']")).to_be_visible()
    fields = page.evaluate("Object.fromEntries(new FormData(document.getElementById('submit-form')))")
    cookies = {one["name"]: one["value"] for one in page.context.cookies()}
    sent = [
        httpx.post(f"{served.url}/training/submit", data={**fields, "do": "submit"}, cookies=cookies)
        for _ in range(2)
    ]
    assert [answer.status_code for answer in sent] == [303, 303]
    assert sent[0].headers["location"] == sent[1].headers["location"]
    assert len(jobs(served)) == 1


def test_without_a_script_the_form_works_too(browser: Browser, served: Served) -> None:
    """A script that is late, or blocked, must not keep anybody from submitting."""
    context = browser.new_context(base_url=served.url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/training/submit")
    page.get_by_label("or your own").fill(LOOP)
    page.get_by_role("button", name="Show its fields").click()
    page.locator("textarea[name='config']").fill('{"seconds": 60}')
    page.get_by_role("button", name="Submit").click()
    expect(page).to_have_url(re.compile("/training/monitor"))
    assert jobs(served)[0]["spec"]["config"] == {"seconds": 60}
    context.close()


def test_what_was_typed_for_one_loop_is_not_submitted_as_another(browser: Browser, served: Served) -> None:
    """The fields of the other loop would be left out without a word."""
    context = browser.new_context(base_url=served.url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/training/submit?loop=sft")
    page.locator("[name='config.max_steps']").fill("7")
    page.get_by_label("One that is here").select_option("torch_ddp")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("main")).to_contain_text(
        "torch_ddp has no config.max_steps: look at its fields below"
    )
    expect(page.locator("[name='config.steps']")).to_be_visible()
    assert jobs(served) == []
    context.close()


def test_a_check_says_its_sentence_once(page: Page, served: Served) -> None:
    page.goto("/training/submit?loop=sft")
    page.get_by_role("button", name="Check").click()
    expect(page.locator("#plan")).to_have_text(re.compile("It would not be accepted\\s+2 things are wrong; "))


def test_a_form_of_another_site_is_refused(served: Served) -> None:
    """Any page that a user visits could otherwise start jobs in their name."""
    form = {"do": "submit", "loop": LOOP, "own_loop": LOOP, "config": "{}"}
    for cookies, fields in (
        ({}, form),
        ({"scheduler_csrf": "a"}, form),
        ({"scheduler_csrf": "a"}, {**form, "csrf": "b"}),
    ):
        answer = httpx.post(f"{served.url}/training/submit", data=fields, cookies=cookies)
        assert answer.status_code == 403
        assert "load it again" in answer.text
    assert jobs(served) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_everybody_can_use_the_form(page: Page, scheme: Any, width: int, served: Served) -> None:
    """WCAG AA, in both themes, on a desk and on a phone."""
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto("/training/submit?loop=sft")
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
