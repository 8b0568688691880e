"""`scheduler submit` and `wait`: a job handed in, and seen to its end."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from scheduler.cli import arrays, completion
from scheduler.cli.follow import follow as follow_job
from scheduler.cli.naming import job_id_of
from scheduler.cli.options import AsJson, JobId, Timeout, Url, connect, watching
from scheduler.cli.views import show_job
from scheduler.client import Client, JobHandle
from scheduler.client.spec_file import SpecFile, parse_value, read_spec_file
from scheduler.core.model import Status
from scheduler.errors import InvalidRequest, InvalidSpec, WaitTimedOut

SpecPath = Annotated[
    str | None, typer.Argument(metavar="FILE", help="A spec in YAML or JSON; `-` reads stdin.")
]
Loop = Annotated[
    str | None,
    typer.Option(help="`sft`, `torch_ddp`, or `module:function`.", autocompletion=completion.loops),
]
Name = Annotated[str | None, typer.Option(help="For people; need not be unique.")]
Values = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A field, as resources.num_ranks=2; other keys go to config."
    ),
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Show its progress until it has ended.")]


After = Annotated[
    list[str] | None,
    typer.Option(
        metavar="JOB[:HOW]",
        help="Start it only when that job is completed; or failed, or ended. May be given again.",
        autocompletion=completion.jobs(),
    ),
]
On = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LABEL=VALUE",
        help="Only on nodes with this label, as gpu=H100; of several values of one label any will do. May be given again.",
    ),
]


def submit(
    file: SpecPath = None,
    loop: Loop = None,
    name: Name = None,
    values: Values = None,
    after: After = None,
    start_after: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Do not start it before, as 2027-01-31T03:00:00Z."),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Wanted by then; it goes next when there is only just time enough."
        ),
    ] = None,
    array: arrays.Parameters = None,
    at_most: arrays.AtMost = None,
    metric: arrays.Metric = None,
    on: On = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when the job has ended; 0 only if it completed.")
    ] = False,
    follow: Follow = False,
    timeout_s: Timeout = None,
    key: Annotated[
        str | None,
        typer.Option("--idempotency-key", help="A submit repeated with the same key returns the first job."),
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Submit a job, or an array of jobs, from a file or from options; options win over the file."""
    client = connect(url)
    more = {
        "after": [_whole(client, one) for one in after or []],
        "start_after": start_after,
        "deadline": deadline,
        "resources.on": _labels(on or []),
    }
    given = spec_given(file, loop, name, values).with_values({k: v for k, v in more.items() if v})
    if array or at_most or metric:
        _refuse_beside_array(array, wait or follow)
        found = arrays.submit_array(client, given, array or [], at_most=at_most, metric=metric, key=key)
        arrays.show(found, as_json)
        return
    try:
        handle = client.submit(given.spec(), idempotency_key=key)
    except InvalidSpec as error:
        raise given.placed(error) from None
    if wait or follow:
        if not as_json:
            print(f"job {handle.id} submitted", file=sys.stderr)
        _see_to_its_end(handle, follow, timeout_s, as_json)
    else:
        show_job(handle.last, as_json)


def _refuse_beside_array(array: list[str] | None, waits: bool) -> None:
    if not array:
        raise InvalidRequest("--at-most and --metric are of an array; give --array, as --array seed=1..8")
    if waits:
        raise InvalidRequest(
            "--wait and --follow are of one job; `scheduler array ID` shows how an array stands"
        )


def wait(
    job_id: JobId, follow: Follow = False, timeout_s: Timeout = None, url: Url = None, as_json: AsJson = False
) -> None:
    """Wait for a job's end; exit code 0 only if it completed."""
    _see_to_its_end(connect(url).get(job_id), follow, timeout_s, as_json)


def spec_given(file: str | None, loop: str | None, name: str | None, values: list[str] | None) -> SpecFile:
    """What was given to submit, from a file, from options, or both; options win."""
    options = {"loop": loop, "name": name}
    changes: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    changes |= dict(_pair(value) for value in values or [])
    if file is None and "loop" not in changes:
        raise InvalidRequest(
            "nothing to submit: give a FILE with a spec, or --loop; `scheduler loops` lists them"
        )
    return (read_spec_file(file) if file is not None else SpecFile("the command line")).with_values(changes)


def _labels(given: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in given:
        label, _, value = text.partition("=")
        if not label or not value:
            raise InvalidRequest(f"--on {text[:60]!r}: write it as LABEL=VALUE, such as gpu=H100")
        found.setdefault(label, []).append(value)
    return found


def _whole(client: Client, after: str) -> str:
    """`JOB` or `JOB:HOW` with the whole id of the job."""
    job, _, how = after.rpartition(":")
    if job and how in ("completed", "failed", "ended"):
        return f"{job_id_of(client, job)}:{how}"
    return job_id_of(client, after)


def _pair(value: str) -> tuple[str, Any]:
    key, is_pair, text = value.partition("=")
    if not is_pair or not key:
        raise InvalidRequest(f"--set {value}: write it as KEY=VALUE, for example --set learning_rate=1e-4")
    return key, parse_value(text, f"--set {value}")


def _see_to_its_end(handle: JobHandle, follow: bool, timeout_s: float | None, as_json: bool) -> None:
    """Show the job when it has ended; 0 is for completed alone."""
    try:
        with watching(handle.id):
            if follow and not as_json:
                job = follow_job(handle, Console(stderr=True), timeout_s=timeout_s)
            else:
                job = handle.wait(timeout_s)
    except WaitTimedOut:
        show_job(handle.last, as_json)
        raise
    show_job(job, as_json)
    if job.status is not Status.COMPLETED:
        raise typer.Exit(1)
