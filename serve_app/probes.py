"""For whoever watches over processes: does this replica answer, and does the registry behind it?"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.responses import PlainTextResponse, Response

from scheduler.api.scheduler_api import SchedulerApi
from scheduler.errors import RegistryUnavailable, SchedulerError
from serve_app.problems import answer

router = APIRouter(include_in_schema=False)
PATHS = ("/livez", "/readyz")
"""They say nothing of any job, and are answered without a token, under any name."""
READY_WITHIN_S = 1.0
_REMEMBERED_S = 1.0


class Readiness:
    """Asked by anybody, so the registry is asked once a second at most, and once at a time."""

    def __init__(self, registry: SchedulerApi) -> None:
        self._registry = registry
        self._asking = asyncio.Lock()
        self._refusal: SchedulerError | None = None
        self._asked_at_s = float("-inf")

    async def refusal(self) -> SchedulerError | None:
        """Why it is not ready; None: it is."""
        async with self._asking:
            if time.monotonic() - self._asked_at_s >= _REMEMBERED_S:
                self._refusal = await self._ask()
                self._asked_at_s = time.monotonic()
            return self._refusal

    async def _ask(self) -> SchedulerError | None:
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                await self._registry.documents([])
        except TimeoutError:
            return RegistryUnavailable(f"the registry did not answer within {READY_WITHIN_S:g} s")
        except SchedulerError:
            return RegistryUnavailable("the registry does not answer; /health says why")
        return None


def add(app: FastAPI, registry: SchedulerApi) -> None:
    app.state.readiness = Readiness(registry)
    app.include_router(router)


def _readiness(request: Request) -> Readiness:
    return request.app.state.readiness


@router.get("/livez")
async def livez() -> Response:
    """This process answers."""
    return PlainTextResponse("alive\n")


@router.get("/readyz")
async def readyz(readiness: Annotated[Readiness, Depends(_readiness)]) -> Response:
    """The registry answers too, within a second."""
    refusal = await readiness.refusal()
    return answer(refusal) if refusal else PlainTextResponse("ready\n")
