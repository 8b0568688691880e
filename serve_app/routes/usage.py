"""Usage accounting: what runs held, as JSON and as CSV.

CSV has a path of its own: a link leads to it, and each path answers with one kind of content whatever a client accepts.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from scheduler.api.scheduler_api import SchedulerApi
from scheduler.api.usage import MEDIA_TYPE, UsageDocument, csv_of
from serve_app import openapi
from serve_app.parameters import UsageQuery, day_in, groupings_in
from serve_app.routes.parts import BASE, Scheduler

router = APIRouter()

_A_TABLE = {
    "description": "A line of titles, and one for each row.  A name that a spreadsheet would take for a formula has an "
    "apostrophe before it.",
    "content": {"text/csv": {"schema": {"type": "string"}, "example": openapi.USAGE_CSV}},
}


class CsvResponse(Response):
    media_type = MEDIA_TYPE


@router.get(
    f"{BASE}/usage",
    tags=["usage"],
    summary="GPU and CPU hours by project, user and day",
    responses={200: openapi.answer(openapi.USAGE_EXAMPLE), **openapi.refusals(422)},
)
async def usage(scheduler: Scheduler, query: Annotated[UsageQuery, Query()]) -> UsageDocument:
    """Runs that go on are counted until now.  At most 366 days, and 10,000 rows."""
    return await usage_of(scheduler, query)


@router.get(
    f"{BASE}/usage.csv",
    tags=["usage"],
    summary="The same as CSV",
    response_class=CsvResponse,
    responses={200: _A_TABLE, **openapi.refusals(422)},
)
async def usage_csv(scheduler: Scheduler, query: Annotated[UsageQuery, Query()]) -> CsvResponse:
    """For spreadsheets.  Since when the numbers are complete is told by the JSON alone."""
    found = await usage_of(scheduler, query)
    name = f"usage-{found.first_day}-{found.last_day}.csv"
    return CsvResponse(csv_of(found), headers={"Content-Disposition": f'attachment; filename="{name}"'})


async def usage_of(scheduler: SchedulerApi, query: UsageQuery) -> UsageDocument:
    """Raises InvalidRequest."""
    first, last = day_in(query.first_day, "from"), day_in(query.last_day, "to")
    return await scheduler.usage(first, last, groupings_in(query.by))
