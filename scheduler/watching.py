"""Looking at each run: does it answer, is it in time, does it get on, and is its node going away?"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from scheduler.book import Book
from scheduler.core.lifecycle import AskStop, StopRun
from scheduler.core.model import Job, JobId, Json, Node, Reason, StopKind
from scheduler.core.plain_values import EVIDENCE, METRICS, plain_dict
from scheduler.errors import RunUnreachable
from scheduler.evidence_budget import within_budget
from scheduler.ports import Clock, Observation, Run, Runner
from scheduler.registry import Registry, Sighting
from scheduler.settings import Settings
from scheduler.silence import Silence
from scheduler.viewing import View

log = logging.getLogger("scheduler")


class Watcher:
    """One pass looks at every run.  What it finds wrong it asks the book to stop; it ends nothing itself but the
    unreachable."""

    def __init__(
        self,
        *,
        runner: Runner,
        registry: Registry,
        book: Book,
        view: View,
        clock: Clock,
        settings: Settings,
        nodes: Callable[[], tuple[Node, ...]],
        told: Callable[[JobId], None],
    ) -> None:
        self._runner, self._registry, self._book = runner, registry, book
        self._view, self._clock, self._nodes, self._told = view, clock, nodes, told
        self._lost_after_s = settings.lost_after_s
        self._silence = Silence(clock.now(), settings.observe_every_s + 2 * settings.observe_timeout_s)

    async def once(self) -> None:
        """Fetch progress and proof of life from every run."""
        running = self._registry.running()
        pass_s = self._silence.listen({(job.id, job.fence) for job in running}, self._clock.now())
        await asyncio.gather(*(self._look(job, pass_s) for job in running))

    async def _look(self, job: Job, pass_s: float) -> None:
        if not job.stop and (asked := self._out_of_time(job) or self._drained(job)):
            await self._book.advance(job, asked)
        run, asked_at = (job.id, job.fence), self._clock.now()
        try:
            observation = await self._runner.observe(run)
            observation = replace(observation, progress=plain_dict(observation.progress, METRICS)[0] or None)
        except RunUnreachable:
            self._told(job.id)
            # Unknown is not dead: only past the deadline is the run killed, and its death then is a fact.
            if self._silence.unheard(run, pass_s) > self._lost_after_s:
                await self._runner.stop(StopRun(job_id=job.id, fence=job.fence, kind=StopKind.CANCEL))
        else:
            self._silence.heard(run)
            before = self._registry.sighting(job)
            self._registry.see(job.id, Sighting(job.fence, observation, self._clock.now()))
            if before is None or _shown(before.observation) != _shown(observation):
                self._told(job.id)
            await self._judge(job, asked_at)

    def _out_of_time(self, job: Job) -> AskStop | None:
        limit, since, now = job.spec.max_runtime_s, job.admitted_at, self._clock.now()
        if limit is None or since is None or (now - since).total_seconds() <= limit:
            return None
        return self._ask(job, StopKind.TIMEOUT, Reason(code="timeout", message="it reached its time limit"))

    def _drained(self, job: Job) -> AskStop | None:
        draining = {node.id: node.name for node in self._nodes() if node.draining}
        held = [node for node, _ in job.allocation.ranks if node in draining] if job.allocation else []
        if not held:
            return None
        message = f"node {draining[held[0]] or held[0]} is being drained"
        return self._ask(job, StopKind.PREEMPT, Reason(code="node_drained", message=message))

    async def _judge(self, job: Job, asked_at: datetime) -> None:
        """A run that hangs is looked into before anything is touched.

        What it had not done when it was asked counts, not how long its answer lay here unread: a scheduler that was
        frozen meanwhile would else take every run for one that hangs.
        """
        silence = self._view.silence(job, asked_at)
        if job.stop or silence is None or silence.verdict != "hung":
            return
        evidence = await self._examine((job.id, job.fence))
        hung = Reason(code="hung", message=f"it hung: {silence.words}")
        await self._book.advance(job, self._ask(job, StopKind.HUNG, hung, evidence))

    async def _examine(self, run: Run) -> Json:
        try:
            return plain_dict(within_budget(await self._runner.examine(run)) or {}, EVIDENCE)[0]
        except Exception as error:
            log.exception("the stacks of run %s of job %s could not be taken", run[1], run[0])
            return {"note": f"the stacks could not be taken: {type(error).__name__}: {error}"}

    def _ask(self, job: Job, kind: StopKind, why: Reason, evidence: Json | None = None) -> AskStop:
        return AskStop(
            at=self._clock.now(), by="scheduler", kind=kind, why=why, evidence=evidence, fence=job.fence
        )


def _shown(said: Observation) -> tuple[object, ...]:
    """What of it a person sees; the rest moves with every look."""
    return said.phase, said.progress, said.resumed, said.saved, said.stop_seen_at
