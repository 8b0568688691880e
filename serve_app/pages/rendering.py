"""From values to HTML: the templates, and the words in which they show numbers and times."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from scheduler.api.jobs import JobDocument
from scheduler.core.durations import span
from scheduler.core.finite import finite
from scheduler.core.model import Status
from scheduler.core.redaction import masked
from scheduler.core.visible import visible
from scheduler.errors import SchedulerError
from serve_app.caller import base_of
from serve_app.pages import assets
from serve_app.pages.visitor import Visitor

log = logging.getLogger(__name__)

_TEMPLATES = Path(__file__).parents[1] / "templates"
PAGES = "Scheduler-Pages"
"""A header of each page and part: the version of the scripts that it was made for.  What has none is not ours."""
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))


class Renderer:
    """Answers requests with pages, or with the part of one that a script on the page asked for."""

    def __init__(self) -> None:
        self._templates = _environment()

    def page(self, request: Request, name: str, status: int = 200, **values: Any) -> HTMLResponse:
        visitor = Visitor.of(request)
        values = {"page_name": ""} | values
        response = _html(self.text(name, base_of(request.scope), visitor=visitor, **values), status)
        visitor.greet(request, response)
        return response

    def part(self, request: Request, name: str, **values: Any) -> HTMLResponse:
        """The same for everybody."""
        return _html(self.text(name, base_of(request.scope), **values))

    def text(self, name: str, base: str, **values: Any) -> str:
        """For parts that are the same for everybody; *values* holds no visitor then.  *base* stands before each path."""
        return self._templates.get_template(name).render(now=datetime.now(UTC), base=base, **values)

    def alone(self, part: str, base: str, job: JobDocument) -> str:
        """What is told of one job: `<part>.html`, or `<part>_unreadable.html`."""
        return self.text("alone.html", base, part=f"{part}.html", instead=f"{part}_unreadable.html", job=job)


def _html(text: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(text, status, headers={PAGES: assets.version()})


def is_part(request: Request) -> bool:
    """Asked by a script on one of our pages, which has a layout already."""
    return request.headers.get("hx-request") == "true"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_seen,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(asset=assets.url, Status=Status, alone=alone)
    environment.filters.update(
        ago=ago,
        progress=progress,
        percent=percent,
        duration=duration,
        span=span,
        bytes=in_bytes,
        at=at,
        without=without,
        masked=masked,
        sentence=sentence,
        exactly=Exact,
        printed=printed,
        counted=counted,
        spelled=spelled,
    )
    environment.tests.update(refusal=lambda found: isinstance(found, SchedulerError))
    return environment


class Exact(str):
    """A text that stands as it is: in an input, which sends it back."""


def _seen(value: Any) -> Any:
    """Whatever a template writes passes here.  What is markup already was made of texts that did."""
    return visible(value) if type(value) is str else value


@pass_context
def alone(context: Context, name: str, instead: str, **values: Any) -> Markup:
    """The part *name*, as `include` draws it.  One that cannot be drawn does not take the page with it: *instead* stands
    there then."""
    environment, known = context.environment, context.get_all() | values
    try:
        return Markup(environment.get_template(name).render(known))
    except Exception:
        log.exception(
            "%s could not be drawn for job %s", name, known["job"].job_id, extra={"action": "part_not_drawn"}
        )
        return Markup(environment.get_template(instead).render(known))


def ago(then: datetime | None, now: datetime) -> str:
    return "never" if then is None else f"{duration((now - then).total_seconds())} ago"


def duration(seconds: float) -> str:
    whole = max(0, int(seconds))
    for unit, length in _UNITS:
        if whole >= 2 * length:
            return f"{whole // length} {unit}"
    return f"{whole} s"


def at(moment: datetime) -> str:
    """For the title of a time that is told as an age."""
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def sentence(words: str) -> Markup:
    """What the scheduler says in half a sentence, as a whole one; what it has in backticks is code."""
    words = visible(words)
    begun = words[:1].upper() + words[1:]
    whole = begun if not begun or begun.endswith((".", "!", "?", ":")) else f"{begun}."
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(whole))))


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def printed(text: str) -> str:
    """As a terminal would leave it: without colours, and of a line that was written over, what was last."""
    lines = _ESCAPES.sub("", text).split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def spelled(name: str) -> str:
    """`RunEnded` as people write it."""
    return re.sub(r"(?<=[a-z])([A-Z])", r" \1", name).lower()


def in_bytes(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def progress(job: JobDocument) -> str:
    """Step, loss and speed, as far as the loop reported them."""
    values = job.progress or {}
    step, total = values.get("step"), values.get("total_steps")
    parts = [] if step is None else [f"step {step}" + (f" of {total}" if total else "")]
    loss, speed = finite(values.get("loss")), finite(values.get("tokens_per_s"))
    if loss is not None:
        parts.append(f"loss {loss:.4g}")
    if speed is not None:
        parts.append(f"{speed:.0f} tokens/s")
    return ", ".join(parts)


def percent(job: JobDocument) -> int | None:
    values = job.progress or {}
    step, total = finite(values.get("step")), finite(values.get("total_steps"))
    if step is None or total is None or total <= 0:
        return None
    return round(100 * max(0.0, min(1.0, step / total)))
