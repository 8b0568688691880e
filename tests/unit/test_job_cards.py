"""What the page of a job is made of, without a browser."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from scheduler.api.base import ReasonDocument
from scheduler.api.jobs import CheckpointDocument, SavedDocument
from scheduler.core.model import Gang, JobSpec, Status
from serve_app.pages.cards import card
from serve_app.pages.job_page import submitted_text
from serve_app.pages.rendering import percent, progress, sentence, spelled
from serve_app.pages.start_bar import start_bar
from tests.unit.edge import client_of
from tests.unit.recording_registry import JOB_ID, NOW, RecordingRegistry, a_document


def a_checkpoint(name: str, **changes: Any) -> CheckpointDocument:
    values = {"checkpoint": name, "attempt": 1, "at": NOW, "num_bytes": 1, "num_files": 1, "seconds": 0.1}
    return CheckpointDocument.model_validate(values | changes)


@pytest.mark.parametrize(
    ("said", "share"),
    [
        ({"step": 3, "total_steps": 4}, 75),
        ({"step": 5, "total_steps": 4}, 100),
        ({"step": 1e308, "total_steps": 1e-300}, 100),
        ({"step": 10**400, "total_steps": 4}, None),
        ({"step": True, "total_steps": True}, None),
        ({"step": 3, "total_steps": 0}, None),
    ],
)
def test_whatever_a_loop_or_a_row_says_can_be_shown(said: dict[str, Any], share: int | None) -> None:
    job = a_document(status=Status.RUNNING, progress=said | {"loss": 10**400, "tokens_per_s": "fast"})
    assert percent(job) == share
    assert "loss" not in progress(job)


class TestCard:
    @pytest.mark.parametrize(
        ("status", "overdue", "heading"),
        [
            (Status.PENDING, True, "Job Stuck in Pending State"),
            (Status.QUEUED, True, "Job Stuck in Queue"),
            (Status.QUEUED, False, "Waiting in the queue"),
            (Status.FAILED, False, "Job Failed - Restart Required"),
            (Status.CANCELLED, False, "Job Cancelled - Restart Available"),
        ],
    )
    def test_its_heading_says_how_bad_it_is(self, status: Status, overdue: bool, heading: str) -> None:
        """U3, U4: in these words."""
        assert card(a_document(status=status, overdue=overdue), []).heading == heading

    @pytest.mark.parametrize("status", [Status.PENDING, Status.QUEUED])
    def test_a_job_that_waits_can_be_started_and_given_up_without_any_checkpoint(
        self, status: Status
    ) -> None:
        """P7."""
        shown = card(a_document(status=status), [])
        assert shown.main == "force-start"
        assert "fail" in shown.others

    def test_a_job_that_is_held_can_be_let_go(self) -> None:
        held = a_document(reason=ReasonDocument(code="held", message="held", detail=None))
        assert "resume" in card(held, []).others

    def test_where_it_would_go_on_by_itself_is_chosen_first(self) -> None:
        """The newest in time may belong to a past that was left."""
        found = [a_checkpoint("2.1"), a_checkpoint("1.3", next=True), a_checkpoint("1.2")]
        shown = card(a_document(status=Status.FAILED), found)
        assert [one.checkpoint for one in shown.choices] == ["1.3", "2.1", "1.2"]
        assert shown.main == "resume"

    def test_without_a_checkpoint_a_restart_is_offered(self) -> None:
        assert card(a_document(status=Status.FAILED), []).main == "restart"

    def test_a_checkpoint_that_cannot_be_listed_now_is_still_gone_on_from(self) -> None:
        """A storage that is away must not turn a resume into a restart."""
        saved = SavedDocument(checkpoint="1.3", step=60, at=NOW)
        assert card(a_document(status=Status.FAILED, last_checkpoint=saved), []).main == "resume"

    def test_what_is_done_offers_nothing(self) -> None:
        shown = card(a_document(status=Status.COMPLETED), [])
        assert not shown.main
        assert not shown.others


class TestStartBar:
    def test_each_phase_lasts_until_the_next_one(self) -> None:
        phases = {
            name: NOW + timedelta(seconds=at)
            for name, at in (("loading", 4), ("reserving", 0), ("starting", 1), ("training", 10))
        }
        bar = start_bar(a_document(status=Status.RUNNING, phases=phases), NOW + timedelta(seconds=70))
        assert bar
        assert [(one.name, one.seconds) for one in bar.stretches] == [
            ("reserving", 1),
            ("starting", 3),
            ("loading", 6),
        ]
        assert bar.total_s == 10
        assert [(one.name, one.seconds, one.is_open) for one in bar.after] == [("training", 60, True)]
        assert sum(one.width for one in bar.stretches) == pytest.approx(1000)

    def test_a_first_checkpoint_does_not_end_the_training(self) -> None:
        """Only the first moment of each phase is known: a loop trains again after it has saved."""
        phases = {
            name: NOW + timedelta(seconds=at)
            for name, at in (("starting", 0), ("training", 1), ("saving", 17))
        }
        bar = start_bar(a_document(status=Status.RUNNING, phases=phases), NOW + timedelta(seconds=90))
        assert bar
        assert [(one.name, one.seconds, one.is_open) for one in bar.after] == [("training", 89, True)]

    def test_a_start_that_goes_on_grows(self) -> None:
        bar = start_bar(
            a_document(status=Status.RUNNING, phases={"reserving": NOW}), NOW + timedelta(seconds=9)
        )
        assert bar
        assert (bar.stretches[0].seconds, bar.stretches[0].is_open) == (9, True)

    def test_of_a_job_that_never_ran_there_is_none(self) -> None:
        assert start_bar(a_document(), NOW) is None


def test_the_spec_as_submitted_has_what_was_set_and_no_secret() -> None:
    spec = JobSpec(
        loop="sft", config={"lr": 0.1, "hf_token": "abc"}, resources=Gang(num_ranks=2), labels={"team": "nlp"}
    )
    assert json.loads(submitted_text(spec)) == {
        "loop": "sft",
        "config": {"lr": 0.1, "hf_token": "••••••"},
        "resources": {"num_ranks": 2},
        "labels": {"team": "nlp"},
    }


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("it waits", "It waits."),
        ("use `resume`", "Use <code>resume</code>."),
        ("<b>`<i>`", "&lt;b&gt;<code>&lt;i&gt;</code>."),
        ("is it?", "Is it?"),
        ("", ""),
    ],
)
def test_a_sentence_is_whole_and_escaped(said: str, shown: str) -> None:
    assert str(sentence(said)) == shown


def test_kinds_of_events_are_words() -> None:
    assert [spelled(one) for one in ("RunEnded", "AskStop", "Admit")] == ["run ended", "ask stop", "admit"]


async def test_the_dashboard_is_linked_where_it_is_known() -> None:
    registry = RecordingRegistry()
    registry.known[JOB_ID] = a_document()
    page = await client_of(registry, dashboard_url="http://127.0.0.1:8265").get(
        f"/training/monitor?jobId={JOB_ID}"
    )
    assert 'href="http://127.0.0.1:8265/#/actors"' in page.text
    page = await client_of(registry).get(f"/training/monitor?jobId={JOB_ID}")
    assert "Ray dashboard" not in page.text


@pytest.mark.parametrize(
    "path", ["/training/monitor?jobId=x", "/training/confirm?action=x", "/training/logs/download"]
)
async def test_no_page_answers_with_a_bare_problem_document(path: str) -> None:
    answer = await client_of(RecordingRegistry()).get(path)
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("text/html")


async def test_what_a_script_asked_for_is_refused_so_that_it_can_tell() -> None:
    """A page of refusal morphed into the page of the job would wipe it out."""
    registry = RecordingRegistry()
    answer = await client_of(registry).get(
        f"/training/monitor?jobId={JOB_ID}&part=now", headers={"HX-Request": "true"}
    )
    assert answer.status_code == 404
    assert "is known here" in answer.json()["detail"]
