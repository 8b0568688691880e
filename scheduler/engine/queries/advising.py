"""What would happen, told before it happens: made once, from the parts of the service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from scheduler.core.model import Job, Node, Snapshot
from scheduler.engine.queries.action_preview import ActionPreviews
from scheduler.engine.queries.explanation import Explainer
from scheduler.engine.queries.forecaster import Forecaster
from scheduler.engine.queries.job_view import JobViews
from scheduler.engine.queries.submit_preview import SubmitPreview
from scheduler.engine.registry import Registry
from scheduler.engine.spec_validation import SpecValidator
from scheduler.ports import Clock, Journal, Runner
from scheduler.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    explainer: Explainer
    effects: ActionPreviews
    planner: SubmitPreview


def advice(
    *,
    journal: Journal,
    registry: Registry,
    runner: Runner,
    clock: Clock,
    settings: Settings,
    door: SpecValidator,
    view: JobViews,
    snapshot: Callable[[], Snapshot],
    possible_nodes: Callable[[], list[Node]],
    check_again: Callable[[Job], Awaitable[None]],
) -> Advice:
    outlook = Forecaster(
        journal=journal,
        registry=registry,
        clock=clock,
        nodes=lambda: snapshot().nodes,
        stop_grace_s=settings.stop_grace_s,
    )
    effects = ActionPreviews(
        registry=registry,
        runner=runner,
        clock=clock,
        outlook=outlook,
        policy=settings.retries(),
        stop_grace_s=settings.stop_grace_s,
        check_again=check_again,
    )
    return Advice(
        explainer=Explainer(view=view, clock=clock, outlook=outlook, effects=effects),
        effects=effects,
        planner=SubmitPreview(
            door=door, clock=clock, outlook=outlook, snapshot=snapshot, possible_nodes=possible_nodes
        ),
    )
