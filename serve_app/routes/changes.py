"""What changes, live."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from serve_app import change_stream, openapi
from serve_app.change_stream import ChangesQuery, LastChange
from serve_app.routes.parts import BASE, Changes
from serve_app.streams import EventStream

router = APIRouter()


@router.get(
    f"{BASE}/changes",
    tags=["jobs"],
    summary="What changes, live, as server-sent events",
    response_class=EventStream,
    responses={**openapi.changes_stream(), **openapi.refusals(422, 429)},
)
async def changes(
    hub: Changes, query: Annotated[ChangesQuery, Query()], last_event_id: LastChange = None
) -> Response:
    """Without an end.  The first event says where the stream begins, and how many jobs stand in each status.

    A move in the line is told of its first 200 places.  `missed`: read the list anew; `doubt`: the scheduler does
    not answer, and the stream goes on when it does."""
    return change_stream.answer(hub, query, last_event_id)
