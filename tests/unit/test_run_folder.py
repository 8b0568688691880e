"""What a run leaves on disk, read back after the fact."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.model import (
    OPERATOR_DOWN,
    Cause,
    CheckpointId,
    Ending,
    Fence,
    JobId,
    Outcome,
    Reason,
    Resumption,
)
from scheduler.runs.post_mortem import stopped_by_operator
from scheduler.runs.progress import ProgressReader
from scheduler.runs.resume_report import UNTOLD
from scheduler.runs.run_dir import RunDir, newest_fence
from scheduler.testing.builders import a_job

STOPPED = Outcome(ending=Ending.STOPPED, reason=Reason(code="stopped", message="as asked"))
VERIFIED = Resumption(checkpoint=CheckpointId("1.3"), step=30, checked=("9 files",), skipped=("1.4 is torn",))


@pytest.fixture
def folder(tmp_path: Path) -> RunDir:
    folder = RunDir(tmp_path / "run-2")
    folder.begin("node-1")
    return folder


def say(folder: RunDir, *lines: dict[str, Any]) -> None:
    with folder.progress_file.open("a") as file:
        for at, line in enumerate(lines):
            file.write(json.dumps({"time": 1000.0 + at, **line}) + "\n")


LOADING = {"phase": "loading"}
RESUMES = {"phase": "loading", "step": 30}
STEPS = {"phase": "training", "step": 31}


@pytest.mark.parametrize(
    ("lines", "nothing"),
    [
        ((), True),
        ((LOADING,), False),
        ((LOADING, RESUMES), True),
        ((LOADING, RESUMES, STEPS), False),
        ((LOADING, {"phase": "training", "loss": 1.0}), False),
    ],
    ids=[
        "no rank has entered the loop",
        "a loop that has said nothing may have made steps",
        "it said where it goes on, and made no step since",
        "a step is done",
        "a loop that tells no steps may have made some",
    ],
)
def test_what_a_pause_would_lose_without_a_checkpoint(
    folder: RunDir, lines: tuple[dict[str, Any], ...], nothing: bool
) -> None:
    """A run that has nothing to save is ended at once; any other is given its time."""
    say(folder, *lines)
    assert folder.has_nothing_to_save() is nothing


def test_the_newest_checkpoint_is_the_last_whole_line(folder: RunDir) -> None:
    """A line torn by a kill, or one that tells an error, is no checkpoint."""
    assert folder.saved() is None
    whole = {
        "checkpoint": "2.1",
        "step": 40,
        "at": "2026-01-01T00:00:00+00:00",
        "seconds": 0.1,
        "num_bytes": 9,
    }
    folder.saved_file.write_text(
        json.dumps(whole) + "\n" + json.dumps({"error": "disk full"}) + "\n" + '{"checkpoint": "2.2", "st'
    )
    saved = folder.saved()
    assert saved is not None
    assert (saved.checkpoint, saved.step, saved.at) == ("2.1", 40, datetime(2026, 1, 1, tzinfo=UTC))


def test_the_certificate_is_what_was_verified_and_what_the_loop_says(folder: RunDir) -> None:
    folder.write_resumed(VERIFIED)
    said = {
        "step": 30,
        "checked": ["random state: found for each rank"],
        "differs": ["device is cuda, was cpu"],
    }
    say(folder, LOADING, {"phase": "loading", "step": 30, "resumed": said}, STEPS)
    outcome = folder.account(STOPPED)
    assert outcome.resumed == Resumption(
        checkpoint=CheckpointId("1.3"),
        step=30,
        checked=("9 files", "random state: found for each rank"),
        differs=("device is cuda, was cpu",),
        skipped=("1.4 is torn",),
    )
    assert outcome.progress == {"step": 31}, "words for the scheduler are no progress"


def test_a_loop_that_does_not_say_what_it_restored_is_not_called_exact(folder: RunDir) -> None:
    """And one that had no time to say it is not blamed."""
    folder.write_resumed(VERIFIED)
    say(folder, LOADING)
    assert folder.account(STOPPED).resumed == VERIFIED
    say(folder, {"phase": "training", "step": 31}, {"phase": "training", "step": 32})
    resumed = folder.account(STOPPED).resumed
    assert resumed is not None
    assert resumed.differs == (UNTOLD,)


def test_samples_stay_out_of_what_is_shown_of_a_run(folder: RunDir) -> None:
    """They are long, and would be in every answer, and in every row of the database."""
    say(folder, {"step": 3, "samples": [{"prompt": "2+2?", "text": "4"}]}, {"step": 4, "loss": 1.0})
    assert folder.account(STOPPED).progress == {"step": 4, "loss": 1.0}


def test_a_loop_may_count_its_samples_and_show_it(folder: RunDir) -> None:
    say(folder, {"step": 3, "samples": 96})
    assert folder.account(STOPPED).progress == {"step": 3, "samples": 96}


def test_a_loop_that_only_reports_is_given_as_long_again_as_it_took_to_the_first_report(
    folder: RunDir,
) -> None:
    """It may report once in two hours: without a pace it would be ended as hung an hour after the first report."""
    hours_s = 7200.0
    reported = {"phase": "training", "reported": True}
    say(folder, LOADING, {**reported, "time": 1000.0 + hours_s, "step": 99, "loss": 1.0})
    reader = ProgressReader(folder.progress_file)
    assert reader.reported() == {"step": 99, "loss": 1.0}
    assert reader.pace is not None
    assert (reader.pace.longest_s, reader.pace.typical_s) == (hours_s, hours_s / 100)
    assert reader.stepped_at_s == 1000.0 + hours_s


def test_why_it_was_ended_by_force_is_read_back(folder: RunDir) -> None:
    assert folder.ended() is None
    folder.write_ended(Reason(code="ended_by_force", message="it did not stop within 8 s"))
    assert folder.ended() == Reason(code="ended_by_force", message="it did not stop within 8 s")
    assert folder.node() == "node-1"


HALF = "\\ud83d"
"""As JSON writes half of a surrogate pair, which Python reads and no database takes."""


@pytest.mark.parametrize(
    "line",
    [
        f'{{"note": "{HALF}"}}',
        '{"note": "\\u0000"}',
        '{"loss": NaN, "lr": Infinity}',
        '{"big": 1' + "0" * 400 + "}",
        '{"step": 1e400}',
        '{"time": 1e300, "step": 8}',
        '{"time": "soon", "phase": ["training"], "step": 8}',
        '{"stop_seen": 1e300}',
        '{"resumed": {"step": 1e300, "checked": ["' + HALF + '", 7]}}',
        "[" * 100_000,
        "{" + ", ".join(f'"name {i}": {i}' for i in range(10_000)) + "}",
        '{"text": "' + "x" * 900_000 + '"}',
        '{"text": "' + "x" * 3_000_000 + '"}',
        "\x00\xff not JSON",
    ],
    ids=lambda line: line[:20],
)
def test_no_line_of_progress_makes_a_run_unreadable(folder: RunDir, line: str) -> None:
    """B1: a healthy run that cannot be asked looks dead, and one whose end cannot be written never ends."""
    folder.write_resumed(VERIFIED)
    say(folder, LOADING, {"phase": "training", "step": 7})
    with folder.progress_file.open("a", encoding="latin-1") as file:
        file.write(line + "\n")
    say(folder, {"step": 9, "loss": 0.5})
    outcome = folder.account(STOPPED)
    assert outcome.progress is not None
    assert (outcome.progress["step"], outcome.progress["loss"]) == (9, 0.5), "what comes after it counts"
    text = json.dumps(outcome.progress, allow_nan=False)
    assert len(text) <= 66_000
    assert HALF.upper() not in text.upper().replace("\\\\", "") and "u0000" not in text.replace("\\\\", "")
    reader = ProgressReader(folder.progress_file)
    assert reader.reported()
    assert reader.phase == "training"
    assert reader.stepped_at_s is not None and reader.stepped_at_s < 4e9


def test_a_loop_that_makes_up_names_for_ever_is_read_in_bounded_memory(folder: RunDir) -> None:
    reader = ProgressReader(folder.progress_file)
    for number in range(3_000):
        say(folder, {f"name {number}": number})
    said = reader.reported()
    assert said is not None
    assert len(said) <= 1_000 and said["name 2999"] == 2999


@pytest.mark.parametrize(
    "spoilt", [b"", b"{", b"[]", b'{"rank": "x"}', b"\x00" * 100, b"null", b"\xff\xfe", b"[" * 100_000]
)
@pytest.mark.parametrize(
    "name",
    ["started", "resumed", "ended", "final", "rank-0", "rank-0.error", "rank-0.returned", "rank-0.exit"],
)
def test_a_file_that_is_spoilt_is_passed_over(folder: RunDir, name: str, spoilt: bytes) -> None:
    """B1: a disk that lost power leaves empty files; reading one must not keep a run from ending."""
    (folder.path / f"{name}.json").write_bytes(spoilt)
    assert folder.final() is None and folder.ended() is None and folder.resumed() is None
    assert (folder.ranks(), folder.returned(), folder.errors(), folder.exits()) == ((), (), [], {})
    folder.node()
    assert folder.job() is None
    assert folder.account(STOPPED) == STOPPED


@pytest.mark.parametrize(
    ("outcome", "becomes"),
    [
        (
            Outcome(ending=Ending.LOST, cause=Cause.INFRASTRUCTURE, reason=Reason(code="killed", message="")),
            "stopped",
        ),
        (Outcome(ending=Ending.STOPPED, reason=Reason(code="stopped", message="")), "stopped"),
        (Outcome(ending=Ending.COMPLETED, reason=Reason(code="completed", message="")), "completed"),
        (
            Outcome(ending=Ending.FAILED, cause=Cause.USER, reason=Reason(code="exception", message="")),
            "failed",
        ),
    ],
)
def test_what_died_after_the_operators_word_died_of_it(
    folder: RunDir, outcome: Outcome, becomes: str
) -> None:
    """B3: but what was done is done, and what the user's code raised is the user's."""
    assert stopped_by_operator(folder, outcome) is outcome
    folder.write_ended(Reason(code="ended_by_force", message="it did not stop within 8 s"))
    assert stopped_by_operator(folder, outcome) is outcome
    told = Reason(code=OPERATOR_DOWN, message="the operator stopped the scheduler")
    folder.write_ended(told)
    seen = stopped_by_operator(folder, outcome)
    assert seen.ending == becomes
    assert (seen.reason == told) == (becomes == "stopped")


def test_what_a_run_keeps_of_its_job_is_for_its_owner_alone(tmp_path: Path) -> None:
    """The storage is shared; a spec may hold a key that only its user should see."""
    folder = RunDir.of(tmp_path, JobId("j"), Fence(1))
    job = a_job("running")
    folder.begin("node-1", job)
    started = folder.path / "started.json"
    assert started.stat().st_mode & 0o777 == 0o600
    assert (folder.job(), folder.node()) == (job, "node-1")


@pytest.mark.parametrize("change", [{"version": 2}, {"version": None}, {"job": {"id": "j"}}, {"job": None}])
def test_what_another_release_kept_is_not_guessed_at(tmp_path: Path, change: dict[str, object]) -> None:
    """Its run is left alone, and shown."""
    folder = RunDir.of(tmp_path, JobId("j"), Fence(1))
    folder.begin("node-1", a_job("running"))
    started = folder.path / "started.json"
    started.write_text(json.dumps(json.loads(started.read_text()) | change))
    assert folder.job() is None
    assert folder.has_begun()


def test_the_newest_fence_is_that_of_the_folders(tmp_path: Path) -> None:
    for name in ("run-2", "run-10", "run-x", "train-j-99", "other"):
        (tmp_path / "j" / name).mkdir(parents=True)
    assert newest_fence(tmp_path, JobId("j")) == 10
    assert newest_fence(tmp_path, JobId("unknown")) == 0
