"""The API as its own description has it: readable by generators, and true for whatever a client sends."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from scheduler.api.arrays import ArrayDocument
from scheduler.api.metrics import MetricsDocument
from scheduler.api.projects import ProjectDocument, ProjectList
from scheduler.api.queue import QueueDocument
from scheduler.api.recurring import RecurringForgotten
from scheduler.api.repairs import ReconcileAnswer, RepairPage
from scheduler.api.usage import UsageDocument
from scheduler.core.checkpoints import Checkpoint
from scheduler.core.commands import JobAction
from scheduler.core.model import JobId
from scheduler.engine.periodic import SystemClock
from scheduler.engine.service import Engine
from scheduler.engine.spec_validation import SpecValidator
from scheduler.ports import LogPart, Runner
from scheduler.runs.metric_history import reported_by
from scheduler.settings import Settings
from scheduler.testing.builders import a_node, a_spec
from scheduler.testing.memory import MemoryJournal
from scheduler.testing.memory_mirror import Database, MemoryMirror
from serve_app.app import create_app
from tests.unit.recording_registry import RecordingRegistry
from tests.unit.served import registry_of

TOKEN = "correct-horse"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
PATIENCE_S = 300.0
"""Schemathesis gives up after 10 s: a batch of thousands takes longer on a machine with much to do."""
JOB_IDS = [f"0b2f1c9e-2a55-4d0c-8c4f-6a1f1a1c000{digit}" for digit in range(3)]
KNOWN = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)


class IdleRunner(Runner):
    """Nothing runs here: only the door and the registry are asked."""

    async def read_log(self, *_: Any) -> LogPart:
        return LogPart("", 0, 0, True)

    async def checkpoints(self, job_id: JobId) -> list[Checkpoint]:
        return []

    async def metrics(self, job_id: JobId, points: int) -> MetricsDocument:
        return reported_by({}).document(job_id, points)


def a_scheduler() -> Any:
    """As the actor offers it."""
    door = SpecValidator((), (Path("/nowhere"),))
    engine = Engine(
        journal=MemoryJournal(), runner=IdleRunner(), clock=SystemClock(), settings=Settings(), validator=door
    )
    engine.cluster.nodes = (a_node(),)
    return registry_of(engine)


def an_app() -> FastAPI:
    """With a queued, a failed and a cancelled job, so that known ids meet more than 404; and with a row that the
    registry does not know."""

    async def fill(registry: Any) -> None:
        for job_id in JOB_IDS:
            await registry.submit(job_id, a_spec(), None)
        await registry.act(JOB_IDS[1], JobAction.FAIL, "ann")
        await registry.act(JOB_IDS[2], JobAction.CANCEL, "ann")

    registry = a_scheduler()
    asyncio.run(fill(registry))
    database = Database(SystemClock())
    database.insert_pending({"loop": "torch_ddp"})
    return create_app(registry, Settings(token=TOKEN), MemoryMirror(database))


def description() -> dict[str, Any]:
    return create_app(RecordingRegistry(), Settings()).openapi()


def quick_to_draw(app: FastAPI) -> FastAPI:
    """Schemathesis draws its cases while pytest collects, in each process; a position of 5,000 characters takes it
    20 s.  That bound is asked in test_log_stream_events."""
    follow = app.openapi()["paths"]["/api/training/{job_id}/logs/stream"]["get"]
    (last,) = [one["schema"] for one in follow["parameters"] if one["name"].lower() == "last-event-id"]
    text = next(one for one in last["anyOf"] if "maxLength" in one) if "anyOf" in last else last
    text["maxLength"] = 50
    return app


schema = schemathesis.openapi.from_asgi("/openapi.json", quick_to_draw(an_app()), headers=AUTHORIZED)


@schema.exclude(operation_id="changes").parametrize()  # it never ends
@KNOWN
def test_the_api_keeps_to_its_description_whatever_is_sent(case: schemathesis.Case) -> None:
    """No 500, no undescribed answer, no bad input taken: L1-L7, L9.

    Good input by the description may still be refused: it cannot tell which loops and files there are.
    """
    excluded = [positive_data_acceptance]
    if case.operation.definition.raw.get("operationId") == "plan":
        excluded.append(negative_data_rejection)  # what is wrong with a spec is its answer
    case.call_and_validate(headers=AUTHORIZED, excluded_checks=excluded, timeout=PATIENCE_S)


@schema.include(path_regex="job_id").parametrize()
@KNOWN
def test_no_request_about_a_known_job_makes_the_server_fail(case: schemathesis.Case) -> None:
    """Random ids never get past 404."""
    waits = case.operation.definition.raw.get("operationId") == "stream_logs"
    for job_id in JOB_IDS[1:] if waits else JOB_IDS:  # the logs of a queued job are followed until it runs
        case.path_parameters["job_id"] = job_id
        case.call_and_validate(headers=AUTHORIZED, checks=[not_a_server_error], timeout=PATIENCE_S)


@schema.include(operation_id="submit").parametrize()
@KNOWN
def test_no_submit_of_a_loop_that_exists_makes_the_server_fail(case: schemathesis.Case) -> None:
    """L1: random loops are turned away at the door; names, labels and keys must get as far as the journal."""
    if isinstance(case.body, dict):
        case.body |= {"loop": "torch_ddp", "config": {}}
    case.call_and_validate(headers=AUTHORIZED, checks=[not_a_server_error], timeout=PATIENCE_S)


def test_the_description_is_valid_openapi() -> None:
    """A client generator refuses what is not."""
    assert list(OpenAPIV31SpecValidator(description()).iter_errors()) == []


def operations() -> list[tuple[str, dict[str, Any]]]:
    paths = description()["paths"]
    return [(path, operation) for path, methods in paths.items() for operation in methods.values()]


def test_operations_have_the_short_names_that_generated_clients_call() -> None:
    """A renamed operation breaks every generated client."""
    assert sorted(operation["operationId"] for _, operation in operations()) == [
        "allow_node",
        "array",
        "attempts",
        "cancel",
        "cancel_array",
        "changes",
        "checkpoints",
        "effect",
        "events",
        "explain",
        "force_start",
        "forget_project",
        "forget_recurring_job",
        "health",
        "jobs",
        "logs",
        "loops",
        "mark_failed",
        "metrics",
        "nodes",
        "pause",
        "plan",
        "preempt",
        "projects",
        "queue",
        "reconcile",
        "recurring_job",
        "recurring_jobs",
        "repairs",
        "restart",
        "resume",
        "set_node_aside",
        "set_project",
        "set_recurring_job",
        "shutdown",
        "status",
        "stream_logs",
        "submit",
        "submit_array",
        "submit_batch",
        "usage",
        "usage_csv",
        "what_if",
    ]


@pytest.mark.parametrize(("path", "operation"), operations(), ids=str)
def test_every_operation_describes_its_refusals_as_problems(path: str, operation: dict[str, Any]) -> None:
    """Otherwise a generated client fails on the first refusal instead of telling it."""
    assert operation["tags"]
    assert operation["summary"]
    refusals = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
    assert refusals.keys() >= {"401", "403", "500", "503"}
    for status, answer in refusals.items():
        if (path, status) != ("/health", "503"):
            content = answer["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/ProblemDocument"}


@pytest.mark.parametrize(
    ("operation_id", "document"),
    [
        ("reconcile", ReconcileAnswer),
        ("repairs", RepairPage),
        ("queue", QueueDocument),
        ("usage", UsageDocument),
        ("projects", ProjectList),
        ("array", ArrayDocument),
        ("cancel_array", ArrayDocument),
        ("set_project", ProjectDocument),
        ("forget_project", ProjectDocument),
        ("forget_recurring_job", RecurringForgotten),
    ],
)
def test_answers_are_shown_by_an_example_that_is_one(operation_id: str, document: type[Any]) -> None:
    """An example that the client itself cannot read teaches nobody.  The description leaves out what is null."""
    answers = {
        operation["operationId"]: operation["responses"]["200"]
        for _, operation in operations()
        if "200" in operation["responses"]
    }
    example = answers[operation_id]["content"]["application/json"]["example"]
    assert document.model_validate(example).model_dump(mode="json", exclude_none=True) == example


def test_bodies_are_described_with_an_example_that_is_taken() -> None:
    """A submit without a described body cannot be generated."""
    bodies = {operation["operationId"]: operation.get("requestBody") for _, operation in operations()}
    for name in ("submit", "submit_batch", "submit_array", "set_project", "set_recurring_job"):
        content = bodies[name]["content"]["application/json"]
        assert content["example"]
        assert content["schema"]["additionalProperties"] is False


def test_the_actions_are_described_under_the_name_that_clients_were_generated_with() -> None:
    """Named as our class is, every generated client would lose the type `Action`."""
    schemas = description()["components"]["schemas"]
    assert schemas["Action"]["title"] == "Action"
    assert schemas["Action"]["enum"] == list(JobAction)
    assert "JobAction" not in json.dumps(description())
