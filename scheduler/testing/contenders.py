"""Scenes for the policy with good defaults, so that a test names only what it is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import count
from typing import Any

from scheduler.core.bin_packing import Need, free_now
from scheduler.core.contender import Contender, Rules, Scene, Tenure, Told, preempted
from scheduler.core.model import Allocation, Gang, JobId, Node, NodeId, Snapshot
from scheduler.core.needs import Outline, num_ranks
from scheduler.core.policy import Decision, Start, after

NOW_S = 1_000_000.0
RULES = Rules()
_numbers = count(1)


def gpus(count: int, per_rank: float = 1.0) -> Gang:
    return Gang(num_ranks=count, gpus_per_rank=per_rank)


def on(node: str, ranks: int) -> Allocation:
    return Allocation(ranks=((NodeId(node), ranks),))


def waiter(
    name: str, gang: Gang, *, left_s: float | None = None, waited_s: float = 60.0, **fields: Any
) -> Contender:
    """It waits; *left_s* is what its steps told before."""
    told = None if left_s is None else Told(left_s=left_s, at_s=NOW_S - waited_s)
    return _contender(name, gang, told=told, waits_since_s=NOW_S - waited_s, **fields)


def runner(
    name: str,
    gang: Gang,
    where: Allocation | str,
    *,
    left_s: float | None = None,
    for_s: float = 3600.0,
    due: bool = False,
    **fields: Any,
) -> Contender:
    """It runs for *for_s* already, and has *left_s* left as its steps tell."""
    held = on(where, gang.fewest) if isinstance(where, str) else where
    told = None if left_s is None else Told(left_s=left_s, at_s=NOW_S)
    tenure = fields.pop("tenure", Tenure(allocation=held, since_s=NOW_S - for_s, due=due))
    return _contender(name, gang, told=told, waits_since_s=NOW_S - for_s, tenure=tenure, **fields)


@lru_cache
def _need(gang: Gang, only: frozenset[NodeId] | None) -> Need:
    return Need(gang, only)


def _contender(name: str, gang: Gang, **fields: Any) -> Contender:
    likely: dict[str, Any] = {
        "id": JobId(name),
        "name": name,
        "need": _need(gang, fields.pop("only", None)),
        "size": gang.fewest * gang.gpus_per_rank or gang.fewest * gang.cpus_per_rank,
        "seq": next(_numbers),
        "save_s": 10.0,
        "start_s": 50.0,
    }
    return Contender(**likely | fields)


def a_scene(
    nodes: Sequence[Node] | dict[str, int],
    *,
    waiting: Iterable[Contender] = (),
    running: Iterable[Contender] = (),
    **fields: Any,
) -> Scene:
    """*nodes*: GPUs by name, or whole nodes."""
    if isinstance(nodes, dict):
        nodes = [Node(id=NodeId(name), cpus=64.0, gpus=float(have)) for name, have in nodes.items()]
    outline = Outline(tuple(nodes))
    waiting, running = (tuple(_where_it_may(job, outline) for job in jobs) for jobs in (waiting, running))
    held = tuple((job.need.gang, job.tenure.allocation) for job in running if job.tenure)
    return Scene(
        **{
            "now_s": NOW_S,
            "cluster": outline,
            "free": free_now(Snapshot(nodes=tuple(nodes), running=held)),
            "waiting": waiting,
            "running": running,
            **fields,
        }
    )


def _where_it_may(job: Contender, outline: Outline) -> Contender:
    return replace(job, need=outline.need_of(job.need.gang)) if job.need.gang.on else job


def carried_out(scene: Scene, decision: Decision, rules: Rules = RULES) -> Scene:
    """The same instant, with the stops and starts of *decision* done at once."""
    sizes = {job.id: job.size for job in scene.waiting}
    stopped = [preempted(job, scene.now_s) for job in scene.running if job.id in decision.stops]
    started = [
        _started(job, decision.starts[job.id], scene.now_s)
        for job in scene.waiting
        if job.id in decision.starts
    ]
    running = [*(job for job in scene.running if job.id not in decision.stops), *started]
    waiting = [*(job for job in scene.waiting if job.id not in decision.starts), *stopped]
    held = tuple((job.need.gang, job.tenure.allocation) for job in running if job.tenure)
    return replace(
        scene,
        free=free_now(Snapshot(nodes=scene.cluster.nodes, running=held)),
        waiting=tuple(waiting),
        running=tuple(running),
        ledger=after(decision, scene.ledger, sizes, rules, scene.now_s),
    )


def _started(job: Contender, start: Start, now_s: float) -> Contender:
    tenure = Tenure(allocation=start.allocation, since_s=now_s, due=start.due, loan_of=start.loan_of)
    return replace(job, tenure=tenure, kept=None)


def ranks_of(start: Start) -> int:
    return num_ranks(start.allocation)
