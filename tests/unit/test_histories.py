"""What loops measured, read from the folders of their runs."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.model import CheckpointId, Fence, JobId, Resumption
from scheduler.runs import metric_history
from scheduler.runs.metric_history import CHUNK_BYTES, MetricHistories
from scheduler.runs.run_dir import RunDir

JOB = JobId("0b2f1c9e-2a55-4d0c-8c4f-6a1f1a1c0001")
OTHER = JobId("0b2f1c9e-2a55-4d0c-8c4f-6a1f1a1c0002")


@pytest.fixture
def of(tmp_path: Path) -> MetricHistories:
    return MetricHistories(tmp_path)


def say(storage: Path, fence: int, *lines: dict[str, Any] | str, job_id: JobId = JOB) -> RunDir:
    folder = RunDir.of(storage, job_id, Fence(fence))
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.progress_file.open("a") as file:
        file.writelines((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    return folder


def steps(first: int, last: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "time": 1000.0 + step,
            "phase": "training",
            "step": step,
            "total_steps": 99,
            "loss": 1 / step,
            **more,
        }
        for step in range(first, last + 1)
    ]


def test_an_attempt_that_repeats_steps_has_both_told_apart(of: MetricHistories, tmp_path: Path) -> None:
    """Whoever draws them as one line sees a loss that goes back in time."""
    say(tmp_path, 1, {"time": 1000.0, "phase": "loading"}, *steps(1, 4))
    say(tmp_path, 2, {"time": 2000.0, "phase": "loading"}, *steps(3, 5, learning_rate=0.1))
    said = of.metrics(JOB, 1000)
    assert said.attempt == [1, 1, 1, 1, 2, 2, 2]
    assert said.step == [1, 2, 3, 4, 3, 4, 5]
    assert said.series["loss"] == [1 / step for step in said.step]
    assert said.series["learning_rate"] == [None] * 4 + [0.1] * 3
    assert said.at[:2] == [1001.0, 1002.0]
    assert said.total_points == 7
    assert set(said.series) == {"loss", "learning_rate"}


def test_where_later_attempts_went_on_is_marked(of: MetricHistories, tmp_path: Path) -> None:
    """By the checkpoint that the scheduler verified, else by what the loop says while it loads, else not known."""
    say(tmp_path, 1, *steps(1, 9))
    RunDir.of(tmp_path, JOB, Fence(2)).write_resumed(Resumption(checkpoint=CheckpointId("1.2"), step=6))
    say(tmp_path, 2, {"time": 2000.0, "phase": "loading"}, {"phase": "loading", "step": 0}, *steps(7, 9))
    say(tmp_path, 3, {"time": 3000.0, "phase": "loading"}, {"phase": "loading", "step": 0}, *steps(1, 2))
    say(tmp_path, 10, {"time": 4000.0, "phase": "loading"}, *steps(1, 2))
    marks = [(mark.attempt, mark.step, mark.at) for mark in of.metrics(JOB, 1000).resumptions]
    assert marks == [
        (2, 6, datetime.fromtimestamp(2000, UTC)),
        (3, 0, datetime.fromtimestamp(3000, UTC)),
        (10, None, datetime.fromtimestamp(4000, UTC)),
    ]


def test_lines_that_are_torn_or_nonsense_are_passed_over(of: MetricHistories, tmp_path: Path) -> None:
    """A kill tears a line; a loop may write anything."""
    say(tmp_path, 1, *steps(1, 1), '{"time": 5, "lo', "[1, 2]", '{"loss": NaN, "acc": 1}', '{"loss": "x"}')
    say(tmp_path, 1, {"step": None, "loss": None, "nested": {"a": 1}, "ok": True}, *steps(2, 2))
    said = of.metrics(JOB, 1000)
    assert said.series == {"loss": [1.0, None, 0.5], "acc": [None, 1.0, None]}


def test_a_loop_that_tells_no_steps_has_its_rows_counted(of: MetricHistories, tmp_path: Path) -> None:
    say(tmp_path, 1, {"time": 7.0, "reward": 1.0}, {"reward": 2.0})
    said = of.metrics(JOB, 1000)
    assert said.step == [1, 2]
    assert said.at == [7.0, 7.0], "a line without a time was said after the one before"


def test_a_job_that_has_not_run_has_said_nothing(of: MetricHistories, tmp_path: Path) -> None:
    (tmp_path / JOB / "run-1").mkdir(parents=True)
    for job_id in (JOB, OTHER):
        said = of.metrics(job_id, 1000)
        assert (said.job_id, said.step, said.series, said.total_points) == (job_id, [], {}, 0)
    assert of.trends([JOB, OTHER], 32) == {}


def test_of_a_file_that_grows_only_what_is_new_is_read(
    of: MetricHistories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page asks every few seconds, and the file of a long run has hundreds of megabytes."""
    folder = say(tmp_path, 1, *steps(1, 3))
    assert of.metrics(JOB, 1000).total_points == 3
    read: list[bytes] = []
    take = metric_history.Reported.take
    monkeypatch.setattr(
        metric_history.Reported, "take", lambda self, run, line: (read.append(line), take(self, run, line))
    )
    with folder.progress_file.open("a") as file:
        file.write('{"step": 4, "lo')
    assert of.metrics(JOB, 1000).total_points == 3
    with folder.progress_file.open("a") as file:
        file.write('ss": 0.25}\n')
    assert of.metrics(JOB, 1000).series["loss"][-1] == 0.25
    assert read == [b'{"step": 4, "loss": 0.25}']


def test_files_that_were_removed_or_replaced_are_not_shown_any_more(
    of: MetricHistories, tmp_path: Path
) -> None:
    """Nothing is shown that is not backed."""
    folder = say(tmp_path, 1, *steps(1, 3))
    assert of.metrics(JOB, 1000).total_points == 3
    folder.progress_file.write_text('{"loss": 9.0}\n')
    assert of.metrics(JOB, 1000).series == {"loss": [9.0]}
    shutil.rmtree(folder.path)
    assert of.metrics(JOB, 1000).total_points == 0


def test_a_file_of_many_chunks_is_read_whole(of: MetricHistories, tmp_path: Path) -> None:
    """And a line longer than a chunk costs itself only."""
    say(tmp_path, 1, *steps(1, 10_000), json.dumps({"x": "y" * 2 * CHUNK_BYTES}), *steps(10_001, 20_000))
    said = of.metrics(JOB, 2)
    assert (said.total_points, said.step) == (20_000, [1, 20_000])


def test_samples_come_newest_first_and_belong_to_their_step(of: MetricHistories, tmp_path: Path) -> None:
    first, second = {"prompt": "2+2?", "text": "5"}, {"prompt": "2+2?", "text": "4"}
    nonsense = [{"prompt": 1, "text": "a"}, "b", {"text": "c"}]
    say(tmp_path, 1, {"step": 0, "samples": [first]}, {"step": 10, "samples": [*nonsense, second]})
    say(tmp_path, 2, {"step": 12, "samples": [{"prompt": "x" * 9000, "text": "y"}]})
    newest, *others = of.metrics(JOB, 1000).samples
    assert [(one.attempt, one.step, one.text) for one in others] == [(1, 10, "4"), (1, 0, "5")]
    assert (newest.attempt, newest.step) == (2, 12)
    assert newest.prompt == "x" * 8000 + " …"


def test_trends_of_a_page_and_of_jobs_that_went_on(of: MetricHistories, tmp_path: Path) -> None:
    say(tmp_path, 1, *steps(1, 2))
    say(tmp_path, 1, {"reward": 1.0}, job_id=OTHER)
    assert of.trends([JOB, OTHER], 32) == {JOB: [1.0, 0.5]}
    say(tmp_path, 1, {"step": 3, "loss": 7.0})
    assert of.trends([JOB, OTHER], 32) == {JOB: [1.0, 0.5, 7.0]}


def test_trends_of_files_that_did_not_change_open_none(
    of: MetricHistories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of 200 jobs is asked for every few seconds by everybody who looks at it."""
    say(tmp_path, 1, *steps(1, 2))
    seen = of.trends([JOB], 32)
    monkeypatch.setattr(metric_history.History, "read_on", lambda *_: pytest.fail("read again"))
    assert of.trends([JOB], 32) == seen


def test_a_page_does_not_wait_for_long_histories(
    of: MetricHistories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are left out until they are read, some at each call."""
    monkeypatch.setattr(metric_history, "TRENDS_BYTES", CHUNK_BYTES)
    for job_id in (JOB, OTHER):
        folder = say(tmp_path, 1, *steps(1, 9_000), job_id=job_id)
        assert CHUNK_BYTES / 2 < folder.progress_file.stat().st_size < CHUNK_BYTES
    assert set(of.trends([JOB, OTHER], 32)) == {JOB}
    assert set(of.trends([JOB, OTHER], 32)) == {JOB, OTHER}
    say(tmp_path, 1, *steps(9_001, 30_000))
    calls = 1
    while JOB not in (found := of.trends([JOB, OTHER], 32)):
        calls += 1
        assert calls < 10
    assert calls >= 2
    assert len(found[JOB]) <= 32
    assert found[JOB][-1] == 1 / 30_000


def test_memory_is_bounded_and_what_was_dropped_is_read_again(tmp_path: Path) -> None:
    of = MetricHistories(tmp_path, most_cells=500)
    ids = [JobId(f"job-{number}") for number in range(9)]
    for job_id in ids:
        say(tmp_path, 1, *steps(1, 50), job_id=job_id)
    assert {of.metrics(job_id, 1000).total_points for job_id in ids * 2} == {50}
    assert sum(history.num_cells for history in of._histories.values()) <= 500


@pytest.mark.parametrize(
    "line",
    [
        '{"time": 1e300, "phase": "loading", "step": 1e300}',
        '{"time": 1e300, "step": 1e300, "loss": 1e308, "samples": [{"prompt": "\\ud83d", "text": "\\u0000"}]}',
        '{"loss": NaN, "step": -1e300}',
        '{"' + "n" * 300 + '": 1.0, "step": 9}',
    ],
)
def test_one_jobs_numbers_do_not_take_the_curves_of_others(
    of: MetricHistories, tmp_path: Path, line: str
) -> None:
    """B2: the list asks for the curves of a page of jobs at once; one time that no calendar has took them all away."""
    say(tmp_path, 1, *steps(1, 3), job_id=OTHER)
    say(tmp_path, 1, *steps(1, 3))
    say(tmp_path, 2, line, *steps(2, 4), line)
    assert of.trends([JOB, OTHER], 10)[OTHER] == [1.0, 1 / 2, 1 / 3]
    said = of.metrics(JOB, 1000)
    assert json.loads(said.model_dump_json())["total_points"] >= 6
    assert all(len(name) <= 200 for name in said.series)
