"""A job in hand: its result or its error, its block, its bar, its table, and how it looks in a notebook."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Iterator
from typing import Any

import pandas
import pytest
from IPython.core.formatters import DisplayFormatter
from served import LOOP, Served, scheduler_at

from scheduler.api.jobs import JobDocument
from scheduler.api.metrics import MetricsDocument
from scheduler.client import AsyncClient, Client, JobHandle, progress_display
from scheduler.client.job_view import as_html, in_words
from scheduler.client.progress_display import is_notebook
from scheduler.client.tables import as_table
from scheduler.core.model import Status
from scheduler.errors import JobFailed, JobNotCompleted, NotReady, ServerUnreachable
from tests.unit.recording_registry import a_document

METRICS = MetricsDocument(
    job_id="j1",
    attempt=[1, 1, 2],
    step=[1, 2, 2],
    at=[1.0, 2.0, 3.0],
    series={"loss": [2.5, None, 1.5], "step": [1, 2, 2]},
    total_points=3,
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with scheduler_at(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.url, user="ann") as client:
        yield client


def submit(client: Client, **config: Any) -> JobHandle:
    return client.submit(loop=LOOP, name="qa", config=config)


# Result


def test_a_result_raises_what_the_job_raised(client: Client) -> None:
    """D5: the traceback from the cluster is printed below the error, as if it had happened here."""
    job = submit(client, fails=1)
    with pytest.raises(JobFailed, match="ValueError: a bad batch") as caught:
        job.result(10)
    error = caught.value
    assert (error.job_id, error.remote_traceback) == (job.id, "Traceback: ...")
    assert isinstance(error, JobNotCompleted)
    assert error.__notes__ == [f"\nremote traceback of job {job.id}:\n\nTraceback: ..."]
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.__notes__, again.reason_code) == (
        str(error),
        error.__notes__,
        error.reason_code,
    )


def test_a_cancelled_job_did_not_fail(client: Client) -> None:
    job = submit(client, seconds=60)
    job.cancel()
    with pytest.raises(JobNotCompleted, match="is cancelled") as caught:
        job.result(10)
    assert not isinstance(caught.value, JobFailed)


# Block


def test_a_block_ends_when_its_job_has_ended(client: Client) -> None:
    with submit(client, seconds=0.2) as job:
        assert job.status().status is not Status.COMPLETED
    assert job.last is not None
    assert job.last.status is Status.COMPLETED


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError()])
def test_a_block_that_is_left_by_an_exception_cancels_its_job(client: Client, error: BaseException) -> None:
    """Ctrl-C in a notebook cell must not leave a job on the GPUs."""
    with pytest.raises(type(error)), submit(client, seconds=60) as job:
        raise error
    assert job.wait(10).status is Status.CANCELLED


def test_a_job_that_has_ended_is_left_as_it_is(client: Client) -> None:
    with pytest.raises(ZeroDivisionError) as caught, submit(client) as job:
        job.wait(10)
        raise ZeroDivisionError
    assert job.status().status is Status.COMPLETED
    assert not hasattr(caught.value, "__notes__")


def test_a_block_says_when_its_job_could_not_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the block raised is not hidden, and neither is a job that goes on."""
    client = Client("http://127.0.0.1:9", retry_s=0)
    with pytest.raises(ZeroDivisionError) as caught, JobHandle(client, "j1"):
        raise ZeroDivisionError
    assert "job j1 could not be cancelled and may go on: no scheduler answers" in caught.value.__notes__[0]


async def test_an_async_block_does_the_same(served: Served) -> None:
    async with AsyncClient(served.url) as client:
        async with await client.submit(loop=LOOP) as job:
            pass
        assert job.last is not None
        assert job.last.status is Status.COMPLETED
        with pytest.raises(ZeroDivisionError):
            async with await client.submit(loop=LOOP, config={"seconds": 60}) as job:
                raise ZeroDivisionError
        assert (await job.wait(10)).status is Status.CANCELLED


# Metrics


def test_metrics_are_a_table() -> None:
    """A column for each series, numbers as numbers, a gap as NaN; a series never hides a column of ours."""
    table = as_table(METRICS, None)
    assert list(table.columns) == ["attempt", "step", "at", "loss", "step_reported"]
    assert table["loss"].tolist()[::2] == [2.5, 1.5]
    assert pandas.isna(table["loss"][1])
    assert table["at"].dt.tz is not None
    assert as_table(METRICS, False) is METRICS


def test_a_table_without_points_has_its_columns_all_the_same() -> None:
    nothing = MetricsDocument(job_id="j1", attempt=[], step=[], at=[], series={"loss": []}, total_points=0)
    assert as_table(nothing, True)["loss"].dtype == float


def test_without_pandas_metrics_are_the_document(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    job = submit(client)
    assert isinstance(job.metrics(), MetricsDocument)
    with pytest.raises(NotReady, match="pip install pandas"):
        job.metrics(table=True)


# Looks


def test_a_job_is_shown_anew_each_time_a_notebook_shows_it(client: Client) -> None:
    """The card of a cell that is run again must not be that of the submit."""
    job = submit(client)
    client.wait(job.id, 10)
    shown, _ = DisplayFormatter().format(job)
    assert "completed" in shown["text/html"]
    assert f"{client.url}/training/monitor?jobId={job.id}" in shown["text/html"]
    assert "last seen completed" in repr(job)


def test_a_card_without_a_server_says_that_it_is_old() -> None:
    job = JobHandle(Client("http://127.0.0.1:9"), "j1", a_document(name="qa"))
    html = job._repr_html_()
    assert "last seen at" in html
    assert "Not seen now: no scheduler answers" in html


def test_what_people_wrote_is_escaped() -> None:
    """A name is text of whoever submitted, and a notebook runs what is in a page."""
    evil = "<script>alert(1)</script>"
    document = a_document(name=evil, progress={"step": 1, "total_steps": 2, "loss": evil})
    assert "<script" not in as_html(document, "http://127.0.0.1/'><script>", "seen")


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (None, "running"),
        ({"step": 3}, "running step 3"),
        ({"step": 40, "total_steps": 100, "loss": 1.23456}, "running 40/100, loss 1.235"),
        ({"step": 1_234_567, "total_steps": 2_000_000}, "running 1234567/2000000"),
        ({"step": 10**400, "loss": 10**400}, "running"),
        ({"step": "x", "total_steps": True, "loss": None}, "running"),
    ],
)
def test_progress_fits_in_a_line(progress: Any, words: str) -> None:
    assert in_words(a_document(status=Status.RUNNING, progress=progress)) == words


# Bars


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_that_fills(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    seen: list[JobDocument] = []
    job = submit(client, seconds=0.5, progress={"step": 5, "total_steps": 10, "loss": 0.25})
    assert job.wait(10, progress=True, poll_s=0.05, on_update=seen.append).status is Status.COMPLETED
    said = terminal.getvalue()
    assert "running 5/10, loss 0.25" in said
    assert "completed" in said
    assert [one.status for one in seen][-1] is Status.COMPLETED
    assert "[?25h" in said, "the cursor is back"


def test_a_notebook_shows_a_card_that_is_filled_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards: list[str] = []

    class Cell:
        def update(self, html: Any) -> None:
            cards.append(html.data)

    monkeypatch.setattr(progress_display, "is_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: Cell())
    submit(client, seconds=0.3, progress={"step": 5, "total_steps": 10}).wait(10, progress=True, poll_s=0.05)
    assert any("<progress value='5' max='10'>" in card for card in cards)
    assert "completed" in cards[-1]


def test_a_shell_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPython in a terminal has no cell to draw in."""
    import IPython

    assert not is_notebook()
    monkeypatch.setattr(IPython, "get_ipython", lambda: type("Kernel", (), {"kernel": object()})())
    assert is_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not is_notebook()


def test_a_wait_without_progress_draws_nothing(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    submit(client).wait(10)
    assert capsys.readouterr() == ("", "")


def test_a_bar_ends_when_the_wait_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the terminal keeps a bar that moves, and no cursor."""
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(ServerUnreachable):
        Client("http://127.0.0.1:9", retry_s=0).wait("j1", 1, progress=True)
    assert "[?25h" in terminal.getvalue()
