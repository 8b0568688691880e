"""What a loop says to whoever started it, and how its result appears."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from train_loops.progress import Progress, output_dir, whole_folder


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAIN_PROGRESS_FILE", str(tmp_path / "progress"))
    monkeypatch.setenv("TRAIN_STOP_FILE", str(tmp_path / "stop"))
    return tmp_path / "progress"


def lines(file: Path) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in json.loads(line).items() if k != "time"} for line in file.read_text().splitlines()
    ]


def test_a_fast_loop_writes_few_lines_and_the_last_word(file: Path) -> None:
    """Thousands of lines a second would slow training; losing the last would show a wrong end."""
    progress = Progress(0, min_interval_s=60)
    for step in range(1, 1001):
        progress.say("training", step=step, loss=1 / step)
    progress.flush()
    assert lines(file) == [
        {"phase": "training", "step": 1, "loss": 1.0},
        {"phase": "training", "step": 1000, "loss": 0.001},
    ]


def test_a_change_of_phase_is_told_at_once(file: Path) -> None:
    """Otherwise a job that saves for minutes looks as if it still trained."""
    progress = Progress(0, min_interval_s=60)
    for phase in ("loading", "training", "saving"):
        progress.say(phase)
    assert [line["phase"] for line in lines(file)] == ["loading", "training", "saving"]


def test_a_number_that_json_does_not_know_becomes_null(file: Path) -> None:
    """`NaN` in a line breaks every strict reader, on the one occasion it is needed most."""
    Progress(0).say("training", loss=float("nan"), grad=float("inf"))
    assert lines(file) == [{"phase": "training", "loss": None, "grad": None}]


def test_only_rank_0_speaks_and_looks_for_a_stop(file: Path) -> None:
    """Otherwise ranks that see the file at different moments stop at different steps."""
    (file.parent / "stop").touch()
    other = Progress(1)
    other.say("training", step=1)
    other.flush()
    assert not file.exists()
    assert not other.stop_requested()
    assert Progress(0).stop_requested()


def test_a_stop_is_acknowledged_at_once_and_only_once(file: Path) -> None:
    """Whoever asked must see that the loop knows, even while a step or a checkpoint takes minutes."""
    progress = Progress(0, min_interval_s=60)
    progress.say("training", step=1)
    progress.say("training", step=2)
    assert not progress.stop_requested()
    assert "stop_seen" not in file.read_text()
    (file.parent / "stop").touch()
    assert progress.stop_requested()
    assert progress.stop_requested()
    first, seen = lines(file)
    assert first["step"] == 1
    assert seen.keys() == {"phase", "step", "stop_seen"}
    assert seen["step"] == 2


def test_a_loop_started_by_hand_needs_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loops must run under plain Ray Train too."""
    for name in ("TRAIN_PROGRESS_FILE", "TRAIN_STOP_FILE"):
        monkeypatch.delenv(name, raising=False)
    progress = Progress(0)
    progress.say("training", step=1)
    assert not progress.stop_requested()


def test_the_result_goes_where_it_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever started the loop looks there and nowhere else."""
    monkeypatch.setenv("TRAIN_OUTPUT_DIR", str(tmp_path / "out"))
    assert output_dir() == tmp_path / "out"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """A reader must never find half a model, and a failed save must leave the older one and no rubbish."""
    target = tmp_path / "result"
    with whole_folder(target) as folder:
        (folder / "a").touch()
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["a"]

    with pytest.raises(OSError, match="disk full"), whole_folder(target) as folder:
        (folder / "b").touch()
        raise OSError("disk full")
    assert [path.name for path in target.iterdir()] == ["a"]

    with whole_folder(target) as folder:
        (folder / "c").touch()
    assert [path.name for path in target.iterdir()] == ["c"]
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
