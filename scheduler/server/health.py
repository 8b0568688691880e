"""How the scheduler is, with the reason in words for everything that is not well."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime

from scheduler import __version__
from scheduler.api.health import DatabaseHealth, Health, HolderDocument, NodeHealth, PoolHealth
from scheduler.core.invariants import violations
from scheduler.core.model import Node, Status
from scheduler.core.node_usage import NodeShare, cpus_of, gpus_of, holdings
from scheduler.engine.service import Engine

CLOSING = (
    "it is being stopped: runs save and give way, and nothing starts; if nobody ends it, it goes on by itself in a minute "
    "or two"
)


async def health(service: Engine, *, started_at: datetime, pool: PoolHealth | None) -> Health:
    found = problems(service)
    held = holdings(service.registry.running())
    nodes = [_node(node, held.get(node.id, ())) for node in service.nodes]
    gpus = [{"node": node.name, "gpus": node.gpus, "free": node.free_gpus} for node in nodes if node.gpus]
    return Health(
        status="degraded" if found else "healthy",
        problems=found,
        version=__version__,
        cluster=service.settings.cluster,
        gpu_available=bool(gpus),
        gpu_info=gpus,
        registry={
            "incarnation": service.journal.incarnation,
            "pid": os.getpid(),
            "started_at": started_at.isoformat(),
            "jobs": {status.value: count for status, count in (await _counts(service)).items()},
        },
        database=_database(service),
        loops={loop.name: loop.health() for loop in service.loops},
        unmirrored_writes=await service.journal.outbox_size(),
        pruned_events=service.sync.pruner.events,
        notices_refused=service.sync.notifier.refused,
        notices_given_up=service.sync.notifier.given_up,
        nodes=nodes,
        pool=pool,
    )


def problems(service: Engine) -> list[str]:
    """Everything that is not as it must be, in words; empty when all is well."""
    found = [loop.problem() for loop in service.loops]
    found += [service.background.problem(), service.journal.problem()]
    found += service.watcher.clocks.problems({node.id: node.name for node in service.nodes})
    found += service.found.problems(service.registry.running())
    found.append(CLOSING if service.closing.is_on else None)
    found.append(None if service.nodes else "no live Ray node is known yet: jobs cannot start")
    found.append(service.sync.notifier.problem())
    found.append(_unreadable(service))
    found += violations(service.registry.running(), service.nodes)[:10]
    return [words for words in found if words]


def _unreadable(service: Engine) -> str | None:
    broken = {**service.view.unreadable, **service.journal.unreadable}
    if not broken:
        return None
    named = "; ".join(f"job {job_id} ({words})" for job_id, words in sorted(broken.items())[:3])
    return f"{len(broken)} jobs cannot be read whole, and are shown as what is left of them: {named}"


def _node(node: Node, held: Sequence[NodeShare]) -> NodeHealth:
    return NodeHealth(
        node_id=node.id,
        name=node.name,
        cpus=node.cpus,
        gpus=node.gpus,
        free_cpus=cpus_of(node, held).free,
        free_gpus=gpus_of(node, held).free,
        draining=node.draining,
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


def _database(service: Engine) -> DatabaseHealth:
    """Told by the loops that talk to it: the newest of what each of them has seen."""
    link = service.sync.link
    if link is None:
        return DatabaseHealth(note="no Supabase is set: the journal on disk is the only store")
    seen = [loop.health() for loop in service.sync.database_loops]
    failing = [words for loop in service.sync.database_loops if (words := loop.problem())]
    failed = max(
        (one for one in seen if one.last_error_at), key=lambda one: str(one.last_error_at), default=None
    )
    return DatabaseHealth(
        configured=True,
        ok=not failing,
        last_success_at=max((one.last_success_at for one in seen if one.last_success_at), default=None),
        last_error=failed.last_error if failed else None,
        incarnation=link.incarnation,
        note="" if failing else "every change is mirrored to Supabase once it is in the journal",
    )


async def _counts(service: Engine) -> Mapping[Status, int]:
    return await service.journal.counts()
