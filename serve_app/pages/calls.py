"""Asking for a page's sake: with patience that ends, and refusals that a page can show."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from scheduler.errors import InvalidRequest, RegistryUnavailable, SchedulerError
from serve_app.problems import shown

PATIENCE_S = 5

T = TypeVar("T")


async def soon(call: Awaitable[T]) -> T:
    """Raises RegistryUnavailable when there is no answer in time."""
    try:
        return await asyncio.wait_for(call, PATIENCE_S)
    except TimeoutError:
        raise RegistryUnavailable(f"the scheduler did not answer within {PATIENCE_S} s") from None


async def all_of(*calls: Awaitable[Any]) -> list[Any]:
    """The answer of each, or its refusal (a SchedulerError); anything else is a mishap, and raised."""
    found = await asyncio.gather(*map(soon, calls), return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, SchedulerError):
            raise one
    return found


def job_id_in(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise InvalidRequest(f"jobId={shown(text)} is not a job id; open a job from the list") from None


def own_path(text: str) -> str:
    """*text* if it leads to one of our pages, else the list: a form must not send anybody elsewhere."""
    try:
        parts = urlsplit(text)
    except ValueError:  # as for `//[`
        return "/training"
    is_ours = not parts.scheme and not parts.netloc and parts.path.startswith("/training")
    return text if is_ours and "\\" not in text else "/training"
