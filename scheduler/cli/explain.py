"""`scheduler explain` and `plan`: why it stands so, and what would become of a job before there is one."""

from __future__ import annotations

from collections.abc import Iterator

import typer
import yaml
from rich.text import Text

from scheduler.api.forecasts import Explanation, MemoryEstimate, PlanAnswer
from scheduler.api.problems import problem_fields
from scheduler.cli.follow import printable, size
from scheduler.cli.options import AsJson, JobId, Url, connect
from scheduler.cli.submit import Loop, Name, SpecPath, Values, spec_given
from scheduler.cli.views import COLOUR, print_json, print_page
from scheduler.client.spec_file import SpecFile
from scheduler.errors import InvalidSpec, Problem

Line = tuple[str, str | Text]


def explain(job_id: JobId, url: Url = None, as_json: AsJson = False) -> None:
    """Where a job stands and why, when it would start, and what may be done next."""
    found = connect(url).explain(job_id)
    if as_json:
        print_json(found)
    else:
        print_page(explanation_page(found))


def plan(
    file: SpecPath = None,
    loop: Loop = None,
    name: Name = None,
    values: Values = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """What would become of a job: valid, place in the queue, start, memory.  Nothing is queued; exit code 2 when it
    is not valid."""
    given = spec_given(file, loop, name, values)
    answer = _with_lines(_asked(given, url), given)
    if as_json:
        print_json(answer)
    else:
        print_page(plan_page(answer))
    if not answer.valid:
        raise typer.Exit(2)


def explanation_page(found: Explanation) -> Iterator[Line]:
    yield "job", found.job_id
    yield "status", Text(found.status.value, style=COLOUR[found.status])
    yield "why", printable(found.message)
    yield from (("next", printable(f"`{step.command}`: {step.why}")) for step in found.next_steps)
    if found.reason.detail:
        yield "detail", Text(f"\n{found.reason.detail}")


def plan_page(answer: PlanAnswer) -> Iterator[Line]:
    if not answer.valid:
        yield "valid", Text("no", style="red")
        yield from (("wrong", printable(f"{error.field}: {error.message}")) for error in answer.errors)
        yield "next", "correct it and plan again; `scheduler loops` shows what each loop takes"
        return
    yield "valid", Text("yes", style="green")
    yield "fits", "there is room for it now" if answer.fits else "there is no room for it now"
    if answer.forecast:
        yield "starts", printable(answer.forecast.message)
    if answer.memory:
        yield "memory", printable(f"{answer.memory.message} ({_parts(answer.memory)})")
    if answer.spec:
        written = yaml.safe_dump(answer.spec, sort_keys=False, allow_unicode=True).rstrip()
        yield "runs as", "".join(f"\n  {printable(line)}" for line in written.splitlines())


def _asked(given: SpecFile, url: str | None) -> PlanAnswer:
    """A spec that is wrong as it stands is answered here, in the same form."""
    try:
        spec = given.spec()
    except InvalidSpec:
        return connect(url).plan(given.fields)
    return connect(url).plan(spec)


def _with_lines(answer: PlanAnswer, given: SpecFile) -> PlanAnswer:
    """Each error with the line of the file that it is about."""
    placed = given.placed(InvalidSpec.of(*(Problem(one.field, one.message) for one in answer.errors)))
    return answer.model_copy(update={"errors": problem_fields(placed.problems)})


def _parts(memory: MemoryEstimate) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {size(amount)}" for name, amount in memory.parts.items())
