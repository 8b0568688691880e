"""Runs that live in the cluster, outside of any scheduler, and end as the seed says."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from scheduler.core import run_end
from scheduler.core.hangs import Pace
from scheduler.core.lifecycle import StartRun, StopRun
from scheduler.core.model import Allocation, CheckpointId, Fence, JobId, Json, Node, NodeId, Outcome, StopKind
from scheduler.core.observation import moments
from scheduler.core.run_end import Returned
from scheduler.engine.bad_nodes import NOTE
from scheduler.ports import Observation, Run
from scheduler.testing.clock import NOON
from scheduler.testing.fake_runner import COMPLETED, LOST, STOPPED, FakeRunner, failed
from tests.sim.scenario import apart

if TYPE_CHECKING:
    from tests.sim.world import World

FATES = {
    "completes": 55,
    "fails": 15,
    "is lost": 10,
    "goes silent": 8,
    "goes silent and completes": 7,
    "hangs": 5,
    "hands over oddities": 15,
    "ends without a word": 5,
}
ODDITIES: tuple[Any, ...] = (
    {1: 0.5},
    {"label": "\ud83d"},
    {"name": "NUL \x00"},
    {"loss": float("nan"), "seed": 10**400},
    {"lock": object()},
    {"text": "x" * 100_000},
    {"stopped": True},
)
"""What loops return."""
LONGEST_S = (5.0, 60.0, 300.0)
PACE = Pace(steps=9, typical_s=0.5, longest_s=1.0)


@dataclass
class Cluster(FakeRunner):
    """A `scheduler.ports.Runner` whose runs take their time, to end and to be stopped."""

    world: World | None = None
    seen_at_s: dict[Run, float] = field(default_factory=dict)
    """When a run last answered a scheduler."""
    began_s: dict[Run, float] = field(default_factory=dict)
    ends_s: dict[Run, float] = field(default_factory=dict)
    """When the runs end that tell it."""
    stuck: dict[Run, datetime] = field(default_factory=dict)
    """Runs that hang, and when each made its last step."""
    finished: set[Run] = field(default_factory=set)
    """Runs of which every rank returned."""

    async def start(self, action: StartRun) -> None:
        run = (action.job_id, action.fence)
        is_new = run not in self._alive and run not in self._final
        await super().start(action)
        if is_new:
            self.began_s[run] = self._world.loop.time()
            began_at = self._resumed.get(run)
            self._world.note("run starts", *run, began_at.checkpoint if began_at else "from the beginning")
            self._world.checks.run_began(action, began_at)
            self._world.process.start(self._live_out(run))
            self._world.process.start(self._save_now_and_then(run))
            if not {node for node, _ in action.allocation.ranks} <= {node.id for node in self.nodes_now}:
                self._end_if_alive(run, LOST)

    async def stop(self, action: StopRun) -> None:
        """Returns when the run is gone: some save first, some have to be killed."""
        run = (action.job_id, action.fence)
        if run not in self._alive:
            return
        self._world.note("run is stopped", *run, action.kind)
        rng = self._world.rng
        if action.kind is not StopKind.CANCEL:
            await asyncio.sleep(rng.random() * self._world.settings.stop_grace_s)
        killed = action.kind in (StopKind.CANCEL, StopKind.HUNG) or rng.random() < 0.2
        if not killed and rng.random() < 0.8:
            self._save(run)
        self._end_if_alive(run, LOST if killed else STOPPED)

    def progress(self, run: Run) -> Json | None:
        """Some tell how many steps there will be."""
        told = {"step": int(self._world.loop.time())}
        ends_s = self.ends_s.get(run)
        return told if ends_s is None else told | {"total_steps": int(ends_s)}

    async def observe(self, run: Run) -> Observation:
        """In the time of its node, as far as a wall clock is asked."""
        seen = await super().observe(run)
        ahead, stepped_at = self._ahead_of(run), self.stuck.get(run) or self._now()
        up_s = self._world.loop.time() - self.began_s[run]
        quiet_s = (self._now() - stepped_at).total_seconds()
        phases = moments((self._now() + ahead).timestamp(), up_s, quiet_s)
        return replace(seen, pace=PACE, stepped_at=stepped_at + ahead, phases=phases)

    def _ahead_of(self, run: Run) -> timedelta:
        start = next(one for one in self.started if (one.job_id, one.fence) == run)
        node = start.allocation.node_of_each_rank[0]
        return timedelta(seconds=self._world.scenario.ahead_s.get(node, 0.0))

    def set_aside(self) -> set[str]:
        """Names of nodes, as the disk has them."""
        note = json.loads(self._world.disk.notes.get(NOTE, b'{"aside": []}'))
        return {one["node"] for one in note["aside"]}

    def drain_node(self, node_id: NodeId) -> None:
        """It is about to be taken away."""
        self.nodes_now = tuple(
            replace(node, draining=node.draining or node.id == node_id) for node in self.nodes_now
        )

    def lose_node(self, node_id: NodeId) -> None:
        """Its runs die with it."""
        self.nodes_now = tuple(node for node in self.nodes_now if node.id != node_id)
        for start in self.started:
            if node_id in start.allocation.node_of_each_rank:
                self._end_if_alive((start.job_id, start.fence), LOST)

    def end_all(self, outcome: Outcome) -> None:
        for run in sorted(self._alive):
            self._end_if_alive(run, outcome)

    def final(self, run: Run) -> Outcome | None:
        return self._final.get(run)

    def saved_by(self, job_id: JobId) -> dict[CheckpointId, Fence]:
        """The checkpoints of a job with the attempt that saved each, in the order of attempts."""
        there = sorted(self._checkpoints.get(job_id, ()), key=lambda one: (one.fence, one.number))
        return {one.id: one.fence for one in there}

    @property
    def now_s(self) -> float:
        return self._world.loop.time()

    def went_s(self, run: Run) -> float:
        """How long ago it got its nodes: the start may have been a while on its way."""
        return self._world.loop.time() - self._world.checks.ledger.admitted_s.get(run, 0.0)

    def is_of_another(self, action: StartRun) -> bool:
        """There was a run with this fence, which got its nodes at another time."""
        run = (action.job_id, action.fence)
        before = next((one for one in self.started if (one.job_id, one.fence) == run), None)
        if before is None or before.job is None or action.job is None:
            return False
        return before.job.admitted_at != action.job.admitted_at

    def is_alive(self, run: Run) -> bool:
        return run in self._alive

    @property
    def alive(self) -> frozenset[Run]:
        return frozenset(self._alive)

    async def nodes(self) -> tuple[Node, ...]:
        """Ray counts what runs, whoever started it."""
        return tuple(replace(node, available_cpus=node.cpus - self._used(node.id)) for node in self.nodes_now)

    def _used(self, node_id: NodeId) -> float:
        return sum(
            count * start.spec.resources.cpus_per_rank
            for start in self.started
            if (start.job_id, start.fence) in self._alive
            for node, count in start.allocation.ranks
            if node == node_id
        )

    @property
    def _world(self) -> World:
        assert self.world is not None
        return self.world

    async def _live_out(self, run: Run) -> None:
        world = self._world
        (fate,), longest_s = world.rng.choices(list(FATES), list(FATES.values())), world.rng.choice(LONGEST_S)
        if world.weather.is_calm:
            fate, longest_s = "completes", min(LONGEST_S)
        length_s = 2.0 + world.rng.random() * longest_s
        if apart(world.rng).random() < 0.5:
            self.ends_s[run] = world.loop.time() + length_s
        await asyncio.sleep(length_s)
        if fate == "hangs":
            self.stuck[run] = self._now()
            return
        if fate.startswith("goes silent"):
            self.hidden.add(run)
            await asyncio.sleep(world.settings.lost_after_s * world.rng.random() * 2)
        match fate:
            case "goes silent":
                return
            case "fails":
                self._end_if_alive(run, failed())
            case "is lost":
                self._end_if_alive(run, LOST)
            case "ends without a word":
                self._return(run, all_but_one=True)
            case "hands over oddities":
                self._return(run, world.rng.choice(ODDITIES))
            case _:
                self._return(run)

    def _return(self, run: Run, result: Any = None, *, all_but_one: bool = False) -> None:
        """Its ranks return, or all but the last do; the run goes by the records that they leave."""
        if run not in self._alive:
            return
        num_ranks = len(self._allocation(run).node_of_each_rank)
        there = range(num_ranks - 1 if all_but_one else num_ranks)
        records = [Returned(rank=rank, num_ranks=num_ranks, result={}) for rank in there]
        if not all_but_one:
            self.finished.add(run)
        proof = run_end.ending_by_record(records, was_asked_to_stop=False)
        outcome = COMPLETED if proof else LOST
        if result is not None:
            outcome = replace(outcome, result={"output_dir": None, "metrics": result})
        self._end_if_alive(run, outcome)

    def _allocation(self, run: Run) -> Allocation:
        return next(one.allocation for one in self.started if (one.job_id, one.fence) == run)

    async def _save_now_and_then(self, run: Run) -> None:
        while run in self._alive:
            await asyncio.sleep(1.0 + self._world.rng.random() * 100)
            self._save(run)

    def _save(self, run: Run) -> None:
        if run in self._alive and run not in self.stuck:
            made = self.save(run, int(self._world.loop.time()), self._now())
            self._world.note("run saves", *run, made)

    def _now(self) -> datetime:
        return NOON + timedelta(seconds=self._world.loop.time())

    def _end_if_alive(self, run: Run, outcome: Outcome) -> None:
        if run in self._alive:
            self._world.note("run ends", *run, outcome.ending)
            self.end(run, outcome)
