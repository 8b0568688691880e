"""What the routes work with: made once for an app, and given to each that names it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Request

from scheduler.api.scheduler_api import SchedulerApi
from scheduler.core.model import JobSpec
from scheduler.settings import Settings
from serve_app.change_hub import Hub
from serve_app.verified_reads import VerifiedReads

BASE = "/api/training"


def signed(spec: JobSpec, asker: str | None) -> JobSpec:
    """With who submits it: what it says itself, else who asked."""
    return replace(spec, user=asker) if asker and not spec.user else spec


def _scheduler(request: Request) -> SchedulerApi:
    return request.app.state.scheduler


def _reads(request: Request) -> VerifiedReads:
    return request.app.state.reads


def _hub(request: Request) -> Hub:
    return request.app.state.hub


def _settings(request: Request) -> Settings:
    return request.app.state.settings


Scheduler = Annotated[SchedulerApi, Depends(_scheduler)]
Reads = Annotated[VerifiedReads, Depends(_reads)]
Changes = Annotated[Hub, Depends(_hub)]
Configured = Annotated[Settings, Depends(_settings)]
