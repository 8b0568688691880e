"""What was refused, as documents: in the same words on both sides of the wire."""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.api.base import ProblemField
from scheduler.api.forecasts import PlanAnswer
from scheduler.errors import Problem, SchedulerError


def problem_fields(problems: Iterable[Problem]) -> list[ProblemField]:
    return [ProblemField(field=readable(one.field), message=readable(one.message)) for one in problems]


def readable(text: str) -> str:
    """*text* as every reader of UTF-8 takes it: what a person typed may hold bytes that are no text."""
    return text.encode("utf-8", "backslashreplace").decode()


def not_valid(error: SchedulerError) -> PlanAnswer:
    """*error* names every field that is wrong; without fields it is about the whole."""
    found = problem_fields(error.problems or [Problem("body", error.message)])
    count = "1 thing is wrong" if len(found) == 1 else f"{len(found)} things are wrong"
    return PlanAnswer(
        valid=False,
        errors=found,
        fits=None,
        memory=None,
        message=f"it would not be accepted: {count}; {found[0].field}: {found[0].message}",
        spec=None,
    )
