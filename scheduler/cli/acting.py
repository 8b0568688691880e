"""One action on one job or several: shown before it is done where it costs something, and after."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from scheduler.api.forecasts import EffectDocument
from scheduler.api.jobs import ActionAnswer, JobDocument
from scheduler.cli import completion
from scheduler.cli.errors import exit_code, print_error, problem_document
from scheduler.cli.follow import printable
from scheduler.cli.views import print_json, show_job
from scheduler.client import Client
from scheduler.core.model import Status
from scheduler.errors import SchedulerError

Act = Callable[[str], ActionAnswer]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it is done.")]


def jobs_in(*statuses: Status) -> Any:
    """The argument of an action: one job or several; Tab offers those that are in one of *statuses*."""
    return typer.Argument(
        metavar="JOB",
        help="Ids, beginnings of ids, or names.",
        show_default=False,
        autocompletion=completion.jobs(*statuses),
    )


@dataclass
class Outcome:
    """What came of an action on several jobs."""

    done: list[ActionAnswer] = field(default_factory=list[ActionAnswer])
    refused: list[tuple[str, SchedulerError]] = field(default_factory=list[tuple[str, SchedulerError]])


def act(job_ids: list[str], do: Act, as_json: bool) -> None:
    """*do* it to each.  Of several, one that is refused does not keep the others from it."""
    if len(job_ids) == 1:
        _show(do(job_ids[0]), as_json)
        return
    outcome = _each(job_ids, do)
    if as_json:
        print_json(_document(outcome))
    else:
        _print(outcome)
    if outcome.refused:
        raise typer.Exit(exit_code(outcome.refused[0][1]))


def ask_first(client: Client, job_ids: Iterable[str], action: str) -> None:
    """Show what *action* would do to each job that it may be done to, and go on only when a person agrees.

    Nobody is asked where nobody could answer: without a terminal.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    effects = [effect for job_id in job_ids if (effect := client.effect(job_id, action)).allowed]
    for effect in effects:
        print(_in_words(effect), file=sys.stderr)
    if effects and not agreed(f"{action} {'it' if len(effects) == 1 else f'these {len(effects)} jobs'}?"):
        print("nothing was done", file=sys.stderr)
        raise typer.Exit(1)


def agreed(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:  # Ctrl-C, or the end of the input
        print("\nnothing was done", file=sys.stderr)
        raise typer.Exit(130) from None


def _in_words(effect: EffectDocument) -> str:
    forecast = f"; {effect.forecast.message}" if effect.forecast else ""
    return printable(f"{effect.action} {effect.job_id}: {effect.message}{forecast}")


def _each(job_ids: list[str], do: Act) -> Outcome:
    outcome = Outcome()
    for job_id in job_ids:
        try:
            outcome.done.append(do(job_id))
        except SchedulerError as error:
            outcome.refused.append((job_id, error))
    return outcome


def _document(outcome: Outcome) -> dict[str, Any]:
    refused = [
        {"job_id": job_id, **problem_document(error).model_dump()} for job_id, error in outcome.refused
    ]
    return {"done": outcome.done, "refused": refused}


def _print(outcome: Outcome) -> None:
    for answer in outcome.done:
        print(_line(answer))
    for _, error in outcome.refused:
        print_error(error, as_json=False)


def _show(answer: ActionAnswer, as_json: bool) -> None:
    if isinstance(answer, JobDocument):
        show_job(answer, as_json)
    elif as_json:
        print_json(answer)
    else:
        print(_line(answer))


def _line(answer: ActionAnswer) -> str:
    if isinstance(answer, JobDocument):
        return printable(f"{answer.job_id}  {answer.name}  {answer.status}: {answer.reason.message}")
    return printable(f"{answer.message}; it was {answer.previous_status}")
