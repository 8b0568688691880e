"""The commands that act on jobs: `scheduler pause`, `resume`, `cancel` and the like, one for each of `ACTIONS`."""

# Annotations are evaluated here: what Typer reads in them differs from action to action.

from collections.abc import Callable
from typing import Annotated

import typer

from scheduler.cli.acting import Act, Yes, act, ask_first, jobs_in
from scheduler.cli.options import AsJson, Url, connect
from scheduler.client import Client
from scheduler.core.commands import ACTIONS, ActionRule, JobAction
from scheduler.errors import InvalidRequest

Command = Callable[..., None]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint", metavar="ID", help="Go on from this one, as `scheduler checkpoints` shows it."
    ),
]


def command_of(action: JobAction) -> Command:
    """Its help, what Tab offers, and whether it asks first are those of the table."""
    rule = ACTIONS[action]
    command = _maker(rule)(action)
    command.__name__, command.__doc__ = rule.method, rule.help
    return command


def _maker(rule: ActionRule) -> Callable[[JobAction], Command]:
    if rule.is_dangerous:
        return _asking
    if rule.takes_checkpoint:
        return _from_checkpoint
    return _before_others if rule.takes_preempt else _plain


def _plain(action: JobAction) -> Command:
    def command(
        job_ids: Annotated[list[str], jobs_in(*ACTIONS[action].acts_in)],
        url: Url = None,
        as_json: AsJson = False,
    ) -> None:
        act(job_ids, _call(connect(url), action), as_json)

    return command


def _from_checkpoint(action: JobAction) -> Command:
    def command(
        job_ids: Annotated[list[str], jobs_in(*ACTIONS[action].acts_in)],
        checkpoint: Checkpoint = None,
        url: Url = None,
        as_json: AsJson = False,
    ) -> None:
        if checkpoint and len(job_ids) > 1:
            raise InvalidRequest("--checkpoint is of one job; resume the others in a call of their own")
        act(job_ids, _call(connect(url), action, *filter(None, [checkpoint])), as_json)

    return command


def _before_others(action: JobAction) -> Command:
    def command(
        job_ids: Annotated[list[str], jobs_in(*ACTIONS[action].acts_in)],
        preempt: Annotated[
            bool,
            typer.Option("--preempt", help="Preempt other runs for it; `scheduler what-if` shows whose."),
        ] = False,
        url: Url = None,
        as_json: AsJson = False,
    ) -> None:
        act(job_ids, _call(connect(url), action, *([True] if preempt else [])), as_json)

    return command


def _asking(action: JobAction) -> Command:
    asks_in = ACTIONS[action].asks_in

    def command(
        job_ids: Annotated[list[str], jobs_in(*ACTIONS[action].acts_in)],
        yes: Yes = False,
        url: Url = None,
        as_json: AsJson = False,
    ) -> None:
        client = connect(url)
        if not (yes or as_json):
            ask_first(client, (one for one in job_ids if client.status(one).status in asks_in), action)
        act(job_ids, _call(client, action), as_json)

    return command


def _call(client: Client, action: JobAction, *wish: str | bool) -> Act:
    """*wish*: a checkpoint, or whether to preempt."""
    method = getattr(client, ACTIONS[action].method)
    return lambda job_id: method(job_id, *wish)
