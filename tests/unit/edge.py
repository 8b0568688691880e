"""The API over a registry that remembers, as a client sees it."""

from __future__ import annotations

import json
from typing import Any

import httpx

from scheduler.api.base import ProblemDocument
from scheduler.api.scheduler_api import SchedulerApi
from scheduler.ports import Mirror
from scheduler.settings import Settings
from serve_app.app import create_app

SITE = "http://127.0.0.1:8000"
SUBMIT = "/api/training"


def client_of(
    registry: SchedulerApi, database: Mirror | None = None, *, mishaps: bool = True, **settings: Any
) -> httpx.AsyncClient:
    """*mishaps*: what the server did not expect is raised here, instead of being answered with 500."""
    app = create_app(registry, Settings(**settings), database)
    transport = httpx.ASGITransport(app, raise_app_exceptions=mishaps)
    return httpx.AsyncClient(transport=transport, base_url=SITE)


def problem_of(response: httpx.Response) -> ProblemDocument:
    """The answer as a problem document that agrees with itself."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    document = ProblemDocument.model_validate_json(response.content)
    assert document.status == response.status_code
    assert len(response.content) < 20_000, "a refusal must not send back what it was sent"
    return document


def spec(**fields: Any) -> bytes:
    """A spec as it goes over the wire."""
    return json.dumps({"loop": "a", **fields}).encode()
