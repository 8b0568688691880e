"""The table of actions: held to the life of a job, which decides, and to all that is made from it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler import client
from scheduler.cli import COMMANDS
from scheduler.client import calls
from scheduler.core import commands
from scheduler.core.commands import ACTIONS, JobAction
from scheduler.core.lifecycle import apply
from scheduler.core.model import CheckpointId, Fence, Job, Origin, Saved, Status, Stop, StopKind
from scheduler.errors import InvalidRequest, NotAllowed
from scheduler.testing.builders import a_job
from scheduler.testing.clock import NOON
from serve_app.pages.cards import card
from serve_app.pages.jobs_list import BULK
from tests.unit.recording_registry import a_document

ROOT = Path(__file__).resolve().parents[2]
SAVED = Saved(checkpoint=CheckpointId("1.2"), step=20, at=NOON)
TITLES = [f"{action} of a {status} job" for action in JobAction for status in Status]


def jobs(status: Status) -> st.SearchStrategy[Job]:
    """In every way in which a job can be in *status*."""
    waits = status is Status.QUEUED
    return st.builds(
        replace,
        st.just(a_job(status, fence=Fence(3), queue_seq=7)),
        held=st.booleans() if waits else st.just(False),
        retry_at=st.sampled_from([None, NOON + timedelta(hours=1)]) if waits else st.none(),
        saved=st.sampled_from([None, SAVED]),
        origin=st.sampled_from(
            [Origin(), Origin(after=Fence(3)), Origin(checkpoint=SAVED.checkpoint, after=Fence(3))]
        ),
        stop=st.sampled_from([None, *(Stop(kind=kind, by="ann", at=NOON) for kind in StopKind)])
        if status is Status.RUNNING
        else st.none(),
    )


def after(job: Job, action: JobAction, chosen: Saved | None = None) -> Job:
    event = commands.event(action, job, at=NOON, by="ann", end_of_line=99, chosen=chosen)
    return apply(job, event)[0]


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("action", JobAction)
@given(data=st.data())
def test_the_life_of_a_job_allows_what_the_table_allows(
    action: JobAction, status: Status, data: st.DataObject
) -> None:
    """Otherwise pages and completion would offer what is refused, or hide what is not."""
    job = data.draw(jobs(status))
    chosen = data.draw(st.sampled_from([None, SAVED])) if ACTIONS[action].takes_checkpoint else None
    if status not in ACTIONS[action].allowed:
        with pytest.raises(NotAllowed):
            after(job, action, chosen)
    elif status is ACTIONS[action].settled_in:
        assert after(job, action) is job
    else:
        after(job, action, chosen)


@pytest.mark.parametrize("action", JobAction)
def test_an_action_changes_a_job_wherever_the_table_says_so(action: JobAction) -> None:
    """A status in `acts_in` where nothing can ever change would be a promise that nobody keeps."""
    for status in ACTIONS[action].acts_in:
        job = a_job(
            status,
            fence=Fence(3),
            queue_seq=7,
            held=status is Status.QUEUED and action is not JobAction.PAUSE,
        )
        assert after(job, action) is not job, status


@pytest.mark.parametrize("action", JobAction)
def test_a_row_that_no_scheduler_placed_is_the_one_exception(action: JobAction) -> None:
    """`running` in a row without nodes: there is nothing to stop, so that it can be cancelled or given up at once."""
    job = replace(a_job(Status.RUNNING), allocation=None)
    if action in (JobAction.CANCEL, JobAction.FAIL):
        assert after(job, action).status.is_terminal
    elif Status.RUNNING in ACTIONS[action].allowed:
        after(job, action)
    else:
        with pytest.raises(NotAllowed):
            after(job, action)


def test_every_action_has_its_row_and_no_two_share_a_word() -> None:
    assert list(ACTIONS) == list(JobAction)
    for word in ("method", "button", "title", "help", "done"):
        assert len({getattr(rule, word) for rule in ACTIONS.values()}) == len(JobAction), word


@pytest.mark.parametrize("action", JobAction)
def test_a_terminal_asks_only_where_the_action_does_something(action: JobAction) -> None:
    assert ACTIONS[action].asks_in <= ACTIONS[action].acts_in


@pytest.mark.parametrize("action", JobAction)
def test_the_clients_have_a_call_for_each_action(action: JobAction) -> None:
    """By the name and at the path of the table: the command line calls it by that name."""
    rule = ACTIONS[action]
    call = getattr(calls, rule.method)("0b2f1c9e")
    assert (call.method, call.path) == ("POST", f"/api/training/0b2f1c9e/{action}")
    for kind in (client.Client, client.AsyncClient):
        takes = list(inspect.signature(getattr(kind, rule.method)).parameters)
        wishes = [("checkpoint", rule.takes_checkpoint), ("preempt", rule.takes_preempt)]
        assert takes == ["self", "job_id", *(name for name, is_taken in wishes if is_taken)]


def test_the_command_line_has_a_command_for_each_action() -> None:
    told = {name: command.__doc__ for name, command in COMMANDS["Act on jobs"].items()}
    assert told == {action.value: rule.help for action, rule in ACTIONS.items()}


def test_the_database_takes_what_the_table_says_and_no_more() -> None:
    """The newest constraint on `requested_action` of the migrations."""
    written = [
        found[-1]
        for migration in sorted((ROOT / "supabase" / "migrations").glob("*.sql"))
        if (found := re.findall(r"requested_action in \(([^)]*)\)", migration.read_text()))
    ]
    assert set(re.findall(r"'(\w+)'", written[-1])) == {rule.in_database for rule in ACTIONS.values()} - {
        None
    }


def test_a_request_that_is_none_is_refused_in_words() -> None:
    """A row like that must not stop the inbox; the front end reads the refusal."""
    assert commands.action_in_database("force_start") is JobAction.FORCE_START
    for name in ("explode", "fail", "force-start"):
        with pytest.raises(InvalidRequest, match="known are: cancel, pause"):
            commands.action_in_database(name)


def cards() -> Iterator[Any]:
    for status in Status:
        yield status, card(a_document(status=status), [])
        yield status, card(a_document(status=status, last_checkpoint={"checkpoint": "1.2", "at": NOON}), [])


def test_no_card_offers_what_the_table_refuses() -> None:
    """A button that can only be refused is worse than none."""
    for status, shown in cards():
        for action in filter(None, (shown.main, *shown.others)):
            assert status in ACTIONS[action].allowed, (status, action)
    assert set(BULK) <= set(ACTIONS)


def test_the_page_about_control_refuses_what_the_table_refuses() -> None:
    """docs/control.md says for each action what it does in which status."""
    page = (ROOT / "docs" / "control.md").read_text()
    header = re.search(r"^\| \| (pending .*) \|$", page, re.MULTILINE)
    assert header is not None
    columns = [[Status(name) for name in cell.split(", ")] for cell in header[1].split(" | ")]
    for action, rule in ACTIONS.items():
        row = re.search(rf"^\| \*\*{action}\*\* \| (.*) \|$", page, re.MULTILINE)
        assert row is not None, action
        for statuses, cell in zip(columns, row[1].split(" | "), strict=True):
            refused = cell.startswith("refused")
            assert refused == (not rule.allowed.intersection(statuses)), (action, statuses, cell)
