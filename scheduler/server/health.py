"""How the scheduler is, with the reason in words for everything that is not well."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime

from scheduler import __version__
from scheduler.api.health import DatabaseHealth, Health, HolderDocument, NodeHealth, PoolHealth
from scheduler.core.bad_nodes import SetAside, name_of
from scheduler.core.model import Node
from scheduler.core.node_usage import NodeShare, cpus_of, gpus_of, holdings
from scheduler.engine.bad_nodes import set_aside_document
from scheduler.engine.state import DatabaseState, EngineState


def health(state: EngineState, *, started_at: datetime, pool: PoolHealth | None) -> Health:
    held = holdings(state.running)
    nodes = [_node(node, held.get(node.id, ()), state.aside.get(name_of(node))) for node in state.nodes]
    gpus = [{"node": node.name, "gpus": node.gpus, "free": node.free_gpus} for node in nodes if node.gpus]
    return Health(
        status="degraded" if state.problems else "healthy",
        problems=list(state.problems),
        version=__version__,
        cluster=state.settings.cluster,
        gpu_available=bool(gpus),
        gpu_info=gpus,
        registry={
            "incarnation": state.incarnation,
            "pid": os.getpid(),
            "started_at": started_at.isoformat(),
            "jobs": {status.value: count for status, count in state.jobs.items()},
        },
        database=_database(state.database),
        loops=dict(state.tasks),
        unmirrored_writes=state.unmirrored,
        pruned_events=state.pruned_events,
        notices_refused=state.notices_refused,
        notices_given_up=state.notices_given_up,
        nodes=nodes,
        pool=pool,
    )


def _node(node: Node, held: Sequence[NodeShare], aside: SetAside | None) -> NodeHealth:
    return NodeHealth(
        node_id=node.id,
        name=node.name,
        cpus=node.cpus,
        gpus=node.gpus,
        free_cpus=cpus_of(node, held).free,
        free_gpus=gpus_of(node, held).free,
        draining=node.draining,
        set_aside=set_aside_document(aside),
        labels=dict(node.labels),
        held_by=[_holder(holding) for holding in held],
    )


def _holder(holding: NodeShare) -> HolderDocument:
    job = holding.job
    return HolderDocument(
        job_id=job.id,
        name=job.spec.name,
        user=job.spec.user,
        ranks=holding.ranks,
        cpus=holding.cpus,
        gpus=holding.gpus,
    )


def _database(state: DatabaseState | None) -> DatabaseHealth:
    """The newest of what each of the tasks that talk to it has seen."""
    if state is None:
        return DatabaseHealth(note="no Supabase is set: the journal on disk is the only store")
    seen = state.tasks
    failed = max(
        (one for one in seen if one.last_error_at), key=lambda one: str(one.last_error_at), default=None
    )
    return DatabaseHealth(
        configured=True,
        ok=not state.is_failing,
        last_success_at=max((one.last_success_at for one in seen if one.last_success_at), default=None),
        last_error=failed.last_error if failed else None,
        incarnation=state.incarnation,
        note="" if state.is_failing else "every change is mirrored to Supabase once it is in the journal",
    )
