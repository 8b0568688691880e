"""Pages that stay open: after a night with the lid closed, over a renewed server, behind a proxy that answers itself."""

from __future__ import annotations

import re

from playwright.sync_api import Page, Route, expect

from scheduler.core.model import Status
from scheduler.errors import RegistryUnavailable
from tests.browser.jobs import fill, monitor, refuse, submit, submit_until
from tests.unit.served import Served

ALONE = "delete window.SharedWorker;"
"""Not every browser has it; and what a worker asks for, no test can intercept."""
MUTE = """
delete window.SharedWorker;
window.opened = [];
class Mute extends EventTarget {
  static CONNECTING = 0; static OPEN = 1; static CLOSED = 2;
  constructor(url) { super(); this.readyState = 1; window.opened.push(url); }
  close() { this.readyState = 2; }
}
window.EventSource = Mute;
"""


def test_a_connection_that_is_dead_without_a_word_is_opened_anew(served: Served, page: Page) -> None:
    """A laptop that slept holds streams that nothing comes through any more, and that never fail."""
    job_id = submit_until(served, Status.RUNNING)
    page.add_init_script(MUTE)
    page.clock.install()
    for path, stream in (("/training", "/training/live"), (monitor(job_id), "/training/monitor/live")):
        page.goto(path)
        page.wait_for_function("() => opened.length > 0")
        for _ in range(30):
            page.clock.run_for(1_000)
        page.wait_for_function(
            f"() => opened.filter(url => decodeURIComponent(url).includes('={stream}')).length > 1"
        )


def test_a_page_of_a_server_before_this_one_says_so(served: Served, page: Page) -> None:
    """Its scripts are older than the parts that it is sent."""
    page.goto("/training")
    expect(page.locator("#renewed")).to_be_hidden()

    def as_of_later(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, headers=answer.headers | {"scheduler-pages": "0" * 12})

    page.route(re.compile(r"/training$"), as_of_later)
    page.keyboard.press("r")
    expect(page.locator("#renewed")).to_contain_text("has been renewed")
    page.unroute_all(behavior="ignoreErrors")


def test_what_a_proxy_answers_is_shown_as_words_and_never_as_a_part(served: Served, page: Page) -> None:
    """It may hold anything; where a form was, its button would be gone."""
    job_id = submit_until(served, Status.RUNNING)
    page.goto(monitor(job_id))
    page.route("**/training/act", lambda route: route.fulfill(
        status=403, content_type="application/problem+json", body='{"detail": "<b id=bad>no</b> hx"}'
    ))  # fmt: skip
    page.locator("[data-asks=cancel]").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_contain_text("<b id=bad>no</b> hx")
    expect(page.locator("#bad")).to_have_count(0)
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_a_form_that_is_refused_for_a_moment_keeps_what_was_typed(served: Served, page: Page) -> None:
    page.goto("/training/submit")
    page.locator("#f-name").fill("a-long-thought")
    refuse(served, "loops", RegistryUnavailable("the actor is being restarted"))
    page.get_by_role("button", name="Check").click()
    expect(page.locator("#submit-refused")).to_contain_text("The actor is being restarted.")
    expect(page.locator("#f-name")).to_have_value("a-long-thought")


def test_a_question_on_a_page_of_its_own_can_be_left(served: Served, page: Page) -> None:
    """Opened in another tab there is no dialog to close: the link leads back."""
    job_id = submit_until(served, Status.RUNNING)
    page.goto(f"/training/confirm?action=cancel&jobs={job_id}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Cancel")
    page.get_by_role("button", name="Leave it as it is").click()
    expect(page).to_have_url(re.compile(r"/training/monitor\?jobId="))


def test_what_is_called_a_button_is_pressed_with_the_space_bar(served: Served, page: Page) -> None:
    job_id = submit_until(served, Status.RUNNING)
    page.goto(monitor(job_id))
    page.locator("[data-asks=pause]").focus()
    page.keyboard.press(" ")
    expect(page.get_by_role("dialog")).to_contain_text("Pause")


def test_a_moment_is_told_in_the_zone_of_whoever_points_at_it(served: Served, page: Page) -> None:
    job_id = submit_until(served, Status.RUNNING)
    page.goto(monitor(job_id))
    moment = page.locator(".job-facts time").first
    here = re.compile(r" here, \d{4}-\d\d-\d\d .* UTC$")
    moment.hover()
    expect(moment).to_have_attribute("title", here)
    moment.evaluate(
        "time => { time.title = 'as the server sends it' }"
    )  # what a live part does under a still pointer
    expect(moment).to_have_attribute("title", here)


def test_a_row_that_differed_is_doubted_until_it_is_compared_again(served: Served, page: Page) -> None:
    """What comes live is the registry's word alone; that the database says so too is not known yet."""
    job_id = submit_until(served, Status.RUNNING)
    page.goto("/training")
    expect(page.locator("#freshness")).to_have_attribute("data-freshness", "fresh")
    page.evaluate(
        "id => { const row = document.getElementById(`job-${id}`); row.dataset.stale = '';"
        " row.querySelector('.state').insertAdjacentHTML('beforeend', '<span class=\"doubt\">stale: no row</span>'); }",
        job_id,
    )
    served.runner.tell(job_id, step=77)
    row = page.locator(f"#job-{job_id}")
    expect(row).to_contain_text("step 77")
    expect(row.locator(".doubt")).to_have_text("stale: no row")
    page.keyboard.press("r")
    expect(row.locator(".doubt")).to_have_count(0)


def test_a_log_is_shown_as_a_terminal_would_leave_it(served: Served, page: Page) -> None:
    """A progress bar that writes over itself for days is one short line, not one that never stops growing."""
    job_id = submit_until(served, Status.RUNNING)
    page.goto(monitor(job_id))
    lines = page.locator("#logs-lines")
    served.runner.write(job_id, "\x1b[31mred\x1b[0m\n 1%|#\r 2%|##")
    expect(lines).to_contain_text("2%|##")
    served.runner.write(job_id, "\r99%|####" + "x" * 50_000 + "\r100% done\n")
    expect(lines).to_contain_text("100% done")
    assert lines.locator(".line:not(.note)").all_inner_texts()[-2:] == ["red", "100% done"]


def test_a_log_is_followed_again_after_a_proxy_had_nobody_behind_it(served: Served, page: Page) -> None:
    """A browser gives up on a stream that is answered 502, and says nothing."""
    job_id = submit_until(served, Status.RUNNING)
    page.add_init_script(ALONE)
    page.route("**/training/streams?*", lambda route: route.fulfill(status=502, body="bad gateway"))
    page.goto(monitor(job_id))
    expect(page.locator("#logs-state")).to_contain_text("trying again")
    page.unroute("**/training/streams?*")
    served.runner.write(job_id, "here again\n")
    expect(page.locator("#logs-lines")).to_contain_text("here again")


def test_a_series_that_comes_late_joins_its_chart(served: Served, page: Page) -> None:
    """Else the chart without it would stay beside, and stand still."""
    says = [{"step": step, "loss": 1.0, "time": 1.7e9 + step} for step in range(5)]
    job_id = submit_until(served, Status.RUNNING, says=says)
    page.goto(monitor(job_id))
    chart = page.locator('[data-chart="Loss"]')
    expect(chart).to_have_attribute("data-series", "1")
    more = served.registry.metrics

    async def later(*given: object) -> object:
        document = await more(*given)
        series = document.series | {"eval_loss": document.series["loss"]}
        return document.model_copy(update={"series": series})

    served.registry.metrics = later
    served.runner.tell(job_id, step=9)
    expect(chart).to_have_attribute("data-series", "2")
    expect(chart).to_have_count(1)


def test_a_job_that_never_ran_leaves_no_room_for_curves(served: Served, page: Page) -> None:
    fill(served)
    page.goto(monitor(submit(served, "waits")))
    box = page.locator("#charts").bounding_box()
    assert box is not None
    assert box["height"] < 160
