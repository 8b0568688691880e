"""Everything that is refused, as an RFC 9457 problem document: what was wrong, which field, what to do."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from scheduler.api.base import ProblemDocument
from scheduler.api.problems import problem_fields
from scheduler.core.model import Gang, JobSpec
from scheduler.errors import InvalidRequest, InvalidSpec, Problem, SchedulerError
from serve_app.caller import base_of
from serve_app.methods import allow

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2
_HEADERS_OF = {
    408: {"Connection": "close"},  # the rest of the body would be taken for a request
    429: {"Retry-After": str(RETRY_AFTER_S)},
    503: {"Retry-After": str(RETRY_AFTER_S)},
}
_MAX_LISTED = 100
_MAX_IN_SENTENCE = 3
_JOB_FIELDS = [field.name for field in fields(JobSpec)]
_GANG_FIELDS = [field.name for field in fields(Gang)]
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_JSON_TYPES: list[tuple[type, str]] = [
    (bool, "true or false"),
    (type(None), "null"),
    (str, "a string"),
    (int, "a whole number"),
    (float, "a number with decimals"),
    (list, "a list"),
    (dict, "an object"),
]
_SENTENCES = {
    "missing": "is required; add it",
    "string_type": "must be a string, not {kind}",
    "string_too_short": "is empty; give at least {min_length} character",
    "string_too_long": "is {length} characters long; at most {max_length} are allowed",
    "string_pattern_mismatch": "is {value}; 1 to 200 visible ASCII characters are allowed",
    "int_type": "must be a whole number, not {kind}",
    "int_parsing": "must be a whole number, not {value}",
    "int_parsing_size": "is too large a number",
    "int_from_float": "must be a whole number, not {value}",
    "float_type": "must be a number, not {kind}",
    "finite_number": "is not a finite number; give one",
    "greater_than": "is {value}; it must be above {gt:g}",
    "greater_than_equal": "is {value}; it must be {ge:g} or more",
    "less_than": "is {value}; it must be below {lt:g}",
    "less_than_equal": "is {value}; it must be {le:g} or less",
    "bool_parsing": "must be true or false, not {value}",
    "dict_type": "must be an object, not {kind}",
    "dataclass_type": "must be an object, not {kind}",
    "model_type": "must be an object, not {kind}",
    "list_type": "must be a list, not {kind}",
    "too_short": "has {actual_length} items; give at least {min_length}",
    "too_long": "has {actual_length} items; at most {max_length} are allowed",
    "uuid_parsing": "is {value}, which is not a job id; a job id is a UUID, as `scheduler list` shows them",
}


def answer(error: SchedulerError, headers: Mapping[str, str] | None = None) -> Response:
    """The response for *error*; a 503 and a 429 say when to ask again."""
    extra = _HEADERS_OF.get(error.http_status, {})
    return problem(error.http_status, error.code, error.message, error.problems, {**extra, **(headers or {})})


def problem(
    status: int,
    code: str,
    detail: str,
    problems: Iterable[Problem] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    document = ProblemDocument(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        errors=problem_fields(problems),
    )
    return Response(document.model_dump_json(), status, headers, MEDIA_TYPE)


def invalid_spec(errors: Sequence[Any], fields: Sequence[str]) -> InvalidSpec:
    """From the errors of pydantic, in words for whoever wrote it; *fields*: those of the outermost object."""
    problems = tuple(
        Problem(path_of(one["loc"]), _sentence(one, _fields_beside(one["loc"], fields)))
        for one in errors[:_MAX_LISTED]
    )
    return InvalidSpec("the job was not accepted; " + _summary(problems, len(errors)), problems)


def invalid_request(errors: Sequence[Any], known: Sequence[str]) -> InvalidRequest:
    """From the errors of pydantic about parameters and headers; *known*: the parameters that there are."""
    problems = tuple(Problem(path_of(one["loc"][1:]), _sentence(one, known)) for one in errors[:_MAX_LISTED])
    return InvalidRequest("the request was not accepted; " + _summary(problems, len(errors)), problems)


def invalid_body(errors: Sequence[Any], fields: Sequence[str]) -> InvalidRequest:
    """As `invalid_spec`, of a body that is no job."""
    problems = tuple(Problem(path_of(one["loc"]), _sentence(one, fields)) for one in errors[:_MAX_LISTED])
    return InvalidRequest("the request was not accepted; " + _summary(problems, len(errors)), problems)


def invalid(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"the request was not accepted; {field}: {message}", (Problem(field, message),))


def shown(value: object, limit: int = 60) -> str:
    """*value* for a sentence; never more than *limit* characters of what somebody sent."""
    return _cut(repr(value) if isinstance(value, str) else str(value), limit)


def path_of(location: Sequence[str | int]) -> str:
    """`("jobs", 3, "config", "lr")` as `jobs.3.config.lr`; the whole body is `body`."""
    return ".".join(_cut(str(part), 60) for part in location if part != "[key]") or "body"


def _cut(text: str, limit: int) -> str:
    short = text if len(text) <= limit else f"{text[: limit - 3]}..."
    return short.encode(errors="backslashreplace").decode()


def _summary(problems: Sequence[Problem], found: int) -> str:
    text = "; ".join(str(one) for one in problems[:_MAX_IN_SENTENCE])
    more = found - min(found, _MAX_IN_SENTENCE)
    return text + (f"; and {more} more" if more else "")


def _sentence(error: Mapping[str, Any], known: Sequence[str]) -> str:
    kind, value, context = error["type"], error.get("input"), error.get("ctx") or {}
    if kind in _UNKNOWN:
        return _unknown(str(error["loc"][-1]), known)
    if kind == "value_error":
        return str(context["error"])
    if kind not in _SENTENCES:
        return str(error["msg"])
    length = f"{len(value):,}" if isinstance(value, str) else ""
    return _SENTENCES[kind].format(value=shown(value), kind=_json_type(value), length=length, **context)


def _json_type(value: object) -> str:
    return next((words for kind, words in _JSON_TYPES if isinstance(value, kind)), "something else")


def _unknown(name: str, known: Sequence[str]) -> str:
    """Names the field that was probably meant, and those that there are."""
    longer = [field for field in known if name and field.startswith(name)]
    meant = longer or difflib.get_close_matches(name[:60], known, n=1)
    guess = f"did you mean `{meant[0]}`? " if meant else ""
    return f"is not known here; {guess}known are: {', '.join(known)}"


def _fields_beside(location: Sequence[str | int], outermost: Sequence[str]) -> Sequence[str]:
    if len(location) < 2:
        return outermost
    return _GANG_FIELDS if location[-2] == "resources" else _JOB_FIELDS


def install(app: FastAPI) -> None:
    """Make every refusal and every mishap of *app* a problem document."""
    app.add_exception_handler(SchedulerError, _scheduler_error)
    app.add_exception_handler(RequestValidationError, _bad_parameters)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _mishap)


async def _scheduler_error(request: Request, error: Any) -> Response:
    return answer(error)


async def _bad_parameters(request: Request, error: Any) -> Response:
    return answer(invalid_request(error.errors(), _parameters_of(request)))


def _parameters_of(request: Request) -> list[str]:
    path = getattr(request.scope.get("route"), "path", "")
    operation = request.app.openapi()["paths"].get(path, {}).get(request.method.lower(), {})
    return [one["name"] for one in operation.get("parameters", []) if one["in"] == "query"]


async def _http_error(request: Request, error: Any) -> Response:
    path, base = shown(request.url.path), base_of(request.scope)
    if error.status_code == 404:
        detail = f"there is no {path} here; the paths are listed at {base}/docs and described in {base}/openapi.json"
        return problem(404, "unknown_path", detail)
    if error.status_code == 405:
        allowed = allow(request.scope)
        detail = f"{request.method} is not possible on {path}; use {allowed.removesuffix(', OPTIONS')}"
        return problem(405, "method_not_allowed", detail, headers={"Allow": allowed})
    return problem(error.status_code, "http_error", str(error.detail), headers=error.headers)


async def _gone(request: Request, error: Any) -> Response:
    return Response(status_code=499)  # nobody reads it: the client closed the connection


async def _mishap(request: Request, error: Any) -> Response:
    log.exception(
        "%s %s failed", request.method, request.url.path, exc_info=error, extra={"action": "request_failed"}
    )
    detail = f"the server failed with {type(error).__name__}; its log has the traceback. Asking again is safe"
    return problem(500, "internal_error", detail)
