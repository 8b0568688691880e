"""What a person sees: the real `scheduler` in a pseudo-terminal, wide and narrow."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import LOOP, Served, scheduler_at
from terminal import CTRL_C, SCHEDULER, Terminal

from scheduler.client import Client, JobHandle
from scheduler.core.model import Status

COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9]m")
PROGRESS = {"step": 30, "total_steps": 60, "loss": 1.5, "tokens_per_s": 99}


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with scheduler_at(tmp_path) as served:
        monkeypatch.setenv("SCHEDULER_URL", served.url)
        monkeypatch.delenv("SCHEDULER_TOKEN", raising=False)
        yield served


@pytest.fixture
def client(served: Served) -> Client:
    return Client(served.url, user="ana")


def a_job(client: Client, name: str = "seen", *, ranks: int = 1, **config: object) -> JobHandle:
    given = {"seconds": 3600, "progress": PROGRESS} | config
    return client.submit(loop=LOOP, name=name, config=given, resources={"num_ranks": ranks})


def in_a_pipe(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCHEDULER, *args], capture_output=True, text=True, check=False, timeout=60)


# list


@pytest.mark.parametrize("columns", [60, 140])
def test_a_list_fits_the_terminal_and_its_ids_can_be_typed(client: Client, columns: int) -> None:
    """A table that wraps cannot be read; an id that is cut must still name its job."""
    jobs = [a_job(client, f"a-name-that-goes-on-and-on-{index}", ranks=2) for index in range(3)]
    terminal = Terminal("list", columns=columns)
    assert terminal.ends() == 0
    rows = [line for line in terminal.lines if line.startswith(tuple(job.id[:8] for job in jobs))]
    assert len(rows) == 3
    for row in rows:
        assert "a-name-that-" in row
        assert re.search("running|queued", row)
    page = Terminal("status", rows[0].split()[0], columns=columns)
    assert page.ends() == 0
    assert jobs[-1].id in page.shown


def test_colour_is_for_terminals_and_for_those_who_want_it(client: Client) -> None:
    """https://no-color.org; and a pipe full of escape codes cannot be searched."""
    a_job(client)
    coloured, plain = Terminal("list"), Terminal("list", NO_COLOR="1")
    assert (coloured.ends(), plain.ends()) == (0, 0)
    assert COLOUR.search(coloured.written)
    assert not COLOUR.search(plain.written)
    piped = in_a_pipe("list")
    assert piped.returncode == 0
    assert "\x1b" not in piped.stdout + piped.stderr


def test_a_watched_list_follows_what_happens_until_ctrl_c(client: Client) -> None:
    job = a_job(client)
    terminal = Terminal("list", "--watch", columns=80)
    terminal.wait_for("seen", "running", "step 30/60")
    job.cancel()
    terminal.wait_for("cancelled")
    terminal.press(CTRL_C)
    assert terminal.ends() == 0


def test_a_watched_list_says_when_nobody_answers(served: Served, client: Client) -> None:
    """P6: an old list that looks like a new one would be believed."""
    a_job(client)
    terminal = Terminal("list", "--watch", columns=100)
    terminal.wait_for("seen")
    served.call(served.wire.cut())
    terminal.wait_for("seen", "there is no answer now")
    served.call(served.wire.open())
    terminal.wait_until(lambda: "no answer" not in terminal.shown, "a list without doubt")
    terminal.press(CTRL_C)
    assert terminal.ends() == 0


# status, submit, wait


@pytest.mark.parametrize("columns", [60, 120])
def test_a_status_page_tells_why_and_the_command_to_go_on_with(client: Client, columns: int) -> None:
    """P7: whoever reads it knows what to type next."""
    a_job(client, "blocker", ranks=4)
    waiting = a_job(client, "waiting", ranks=4)
    terminal = Terminal("status", "waiting", columns=columns)
    assert terminal.ends() == 0
    shown = waiting.id if columns > 100 else waiting.id[:8]
    for words in (waiting.id, "queued, position 1", "needs 4 ranks", f"`scheduler cancel {shown}`"):
        assert words in " ".join(terminal.shown.split())
    begins = re.compile(r"(job|name|status|why|next|proof|times) |  {9}|$")
    assert [line for line in terminal.lines if not begins.match(line)] == []


@pytest.mark.parametrize("columns", [60, 120])
def test_a_followed_submit_shows_a_bar_on_one_line_and_ctrl_c_leaves_the_job(
    client: Client, columns: int
) -> None:
    """Whoever stops watching must not believe that he stopped the job."""
    config = (
        "--set",
        "seconds=3600",
        "--set",
        "progress={step: 30, total_steps: 60, loss: 1.5, tokens_per_s: 99}",
    )
    terminal = Terminal("submit", "--loop", LOOP, "--name", "bar", *config, "--follow", columns=columns)
    terminal.wait_for("━", "99 tokens/s")
    bars = [line for line in terminal.lines if "━" in line]
    assert len(bars) == 1
    assert bars[0].endswith("step 30/60 · loss 1.5 · 99 tokens/s")
    terminal.press(CTRL_C)
    assert terminal.ends() == 130
    assert "goes on; `scheduler status" in terminal.written.replace("\r\n", "")
    assert "\x1b[?25h" in terminal.written  # the cursor is shown again
    assert next(client.list_jobs()).status is Status.RUNNING


# Questions before what costs something


def test_a_cancel_tells_what_it_would_do_and_asks(client: Client) -> None:
    """D5: hours of training hang on one line."""
    job = a_job(client)
    _running(client, job)
    effect = client.effect(job.id, "cancel")
    assert effect.allowed
    no = Terminal("cancel", "seen", columns=200)
    no.wait_for(effect.message[:40], "cancel it? [y/N]")
    no.press("n\r")
    assert no.ends() == 1
    assert "nothing was done" in no.shown
    assert job.status().stop is None
    yes = Terminal("cancel", job.id[:8], columns=200)
    yes.wait_for("cancel it? [y/N]")
    yes.press("y\r")
    assert yes.ends() == 0
    assert job.wait(20).status is Status.CANCELLED


def test_ctrl_c_at_the_question_does_nothing(client: Client) -> None:
    job = a_job(client)
    _running(client, job)
    terminal = Terminal("cancel", job.id)
    terminal.wait_for("cancel it? [y/N]")
    terminal.press(CTRL_C)
    assert terminal.ends() == 130
    assert "nothing was done" in terminal.shown
    assert job.status().stop is None


def test_one_question_is_for_all_jobs_and_yes_is_for_none(client: Client) -> None:
    """Nobody answers the same question twenty times; a script has nobody to answer."""
    jobs = [a_job(client, f"job-{index}", ranks=2) for index in range(2)]
    for job in jobs:
        _running(client, job)
    terminal = Terminal("cancel", *(job.id for job in jobs))
    terminal.wait_for("cancel these 2 jobs? [y/N]")
    terminal.press("\r")
    assert terminal.ends() == 1
    unasked = Terminal("cancel", "job-0", "--yes")
    assert unasked.ends() == 0
    piped = in_a_pipe("cancel", "job-1")
    assert piped.returncode == 0
    assert [job.wait(20).status for job in jobs] == [Status.CANCELLED] * 2


def test_giving_a_job_up_asks_and_withdrawing_one_that_waits_does_not(client: Client) -> None:
    """A cancelled job that never ran has lost nothing."""
    a_job(client, "blocker", ranks=4)
    waiting, given_up = a_job(client, "waiting", ranks=4), a_job(client, "given-up", ranks=4)
    withdrawn = Terminal("cancel", "waiting")
    assert withdrawn.ends() == 0
    assert waiting.status().status is Status.CANCELLED
    terminal = Terminal("fail", "given-up")
    terminal.wait_for("fail it? [y/N]")
    terminal.press("y\r")
    assert terminal.ends() == 0
    assert given_up.status().status is Status.FAILED


# top


@pytest.mark.parametrize("columns", [60, 140])
def test_top_shows_nodes_runs_and_the_line_and_ends_on_q(client: Client, columns: int) -> None:
    a_job(client, "runs", ranks=3)
    a_job(client, "waits", ranks=4)
    terminal = Terminal("top", "--every", "0.2", columns=columns, rows=24)
    terminal.wait_for("node-1", "/4", "runs of ana", "RUNNING", "runs", "WAITING", "waits", "1. ", "q quit")
    assert "\x1b[?1049h" in terminal.written  # a screen of its own, that gives the old one back
    terminal.press("q")
    assert terminal.ends() == 0
    assert "\x1b[?1049l" in terminal.written
    assert "\x1b[?25h" in terminal.written
    assert terminal.is_as_before


def test_top_follows_what_happens_unless_it_is_paused(client: Client) -> None:
    """A page that moves cannot be read aloud."""
    job = a_job(client)
    terminal = Terminal("top", "--every", "0.2")
    terminal.wait_for("1 running")
    terminal.press("p")
    terminal.wait_for("PAUSED")
    job.cancel()
    job.wait(20)
    terminal.wait_for("1 running", "updated 2 s ago")
    terminal.press("p")
    terminal.wait_for("1 cancelled", "none")
    terminal.press("q")
    assert terminal.ends() == 0


def test_top_scrolls_when_the_line_is_longer_than_the_screen(client: Client) -> None:
    a_job(client, "blocker", ranks=4)
    for index in range(12):
        a_job(client, f"waits-{index:02}", ranks=4)
    terminal = Terminal("top", "--every", "0.2", rows=12, columns=80)
    terminal.wait_for("blocker", "waits-00")
    assert "waits-11" not in terminal.shown
    terminal.press("\x1b[6~")
    terminal.press("G")
    terminal.wait_for("waits-11", "12. ")
    terminal.press("g")
    terminal.wait_for("node-1")
    terminal.press("\x1b[B")
    terminal.wait_until(
        lambda: "node-1" not in terminal.shown or "lines 2-" in terminal.shown, "the second line"
    )
    terminal.press("q")
    assert terminal.ends() == 0


def test_top_says_when_nobody_answers_and_goes_on_when_somebody_does(served: Served, client: Client) -> None:
    """P6."""
    a_job(client)
    terminal = Terminal("top", "--every", "0.2")
    terminal.wait_for("seen")
    served.call(served.wire.cut())
    terminal.wait_for("seen", "no answer: no scheduler answers")
    served.call(served.wire.open())
    terminal.wait_until(lambda: "no answer" not in terminal.shown, "a page without doubt")
    terminal.press(CTRL_C)
    assert terminal.ends() == 0
    assert terminal.is_as_before


# The Tab key


def test_bash_completes_jobs_statuses_and_columns_from_the_server(client: Client, tmp_path: Path) -> None:
    """Through the script that `--show-completion` prints, in a real bash."""
    job = a_job(client, "a-name-of-its-own")
    terminal = Terminal(
        "--norc", program="/bin/bash", PS1="$ ", PATH=f"{Path(SCHEDULER).parent}:/usr/bin:/bin"
    )
    terminal.press('eval "$(scheduler --show-completion bash 2>/dev/null || scheduler --show-completion)"\r')
    for typed, completed in (
        (f"scheduler status {job.id[:8]}", job.id),
        ("scheduler cancel a-name", "a-name-of-its-own"),
        ("scheduler list --status comp", "completed"),
        ("scheduler list --columns name,los", "name,loss"),
        ("scheduler submit --loop torch", "torch_ddp"),
        ("scheduler force-s", "force-start"),
    ):
        terminal.press(f"\x15{typed}")  # what stood there goes
        terminal.press_until("\t", completed)
    terminal.press("\x15exit\r")
    assert terminal.ends() == 0


def test_a_completion_without_a_server_is_silent() -> None:
    """In the middle of a line that is being typed there is no place for an error."""
    terminal = Terminal(
        SCHEDULER_URL="http://127.0.0.1:9",
        _SCHEDULER_COMPLETE="complete_bash",
        COMP_WORDS="scheduler status ab",
        COMP_CWORD="2",
    )
    assert terminal.ends() == 0
    assert terminal.written.strip() == ""


def _running(client: Client, job: JobHandle) -> None:
    """Once its page says so."""
    for chunk in client.log_chunks(job.id, follow=True):
        if chunk.text:
            return
