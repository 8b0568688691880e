"""What the routes of the pages work with: made once for an app, and given to each route that asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from scheduler.api.scheduler_api import SchedulerApi
from scheduler.settings import Settings
from serve_app.change_hub import Hub
from serve_app.pages.job_page import JobPageView
from serve_app.pages.live_rows import LiveRows
from serve_app.pages.rendering import Renderer
from serve_app.verified_reads import VerifiedReads


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    registry: SchedulerApi
    reads: VerifiedReads
    hub: Hub
    renderer: Renderer
    settings: Settings
    rows: LiveRows
    """The list, live."""
    view: JobPageView
    """What the page of a job shows."""

    @classmethod
    def of(cls, registry: SchedulerApi, reads: VerifiedReads, hub: Hub, settings: Settings) -> Site:
        renderer = Renderer()
        return cls(
            registry=registry,
            reads=reads,
            hub=hub,
            renderer=renderer,
            settings=settings,
            rows=LiveRows(hub, registry, renderer),
            view=JobPageView(registry, reads),
        )


def _site(request: Request) -> Site:
    return request.app.state.site


OfSite = Annotated[Site, Depends(_site)]
"""An argument of a route."""
