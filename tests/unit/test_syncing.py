"""Journal, runs and database kept in step: each part by itself, without a network and without waiting."""

from __future__ import annotations

import asyncio
import copy
import json
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.commands import JobAction
from scheduler.core.model import SPEC, Fence, Gang, JobId, JobSpec, Node, NodeId
from scheduler.engine.service import Engine
from scheduler.engine.spec_validation import SpecValidator
from scheduler.errors import (
    MirrorRefused,
    MirrorUnavailable,
    NotAllowed,
    NotDelivered,
    NoticeRefused,
    Superseded,
)
from scheduler.ports import MirrorChange, OutboxRow, ProgressUpdate
from scheduler.settings import Settings
from scheduler.testing.clock import ManualClock
from scheduler.testing.fake_runner import COMPLETED, LOST, FakeRunner, failed
from scheduler.testing.memory import Disk, MemoryJournal
from scheduler.testing.memory_mirror import Database, MemoryMirror


class WatchedMirror(MemoryMirror):
    """Counts what is asked of it, and refuses some jobs."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.calls: Counter[str] = Counter()
        self.signs: list[ProgressUpdate] = []
        self.refused: set[str] = set()
        self.refuses_all = False

    async def apply(self, changes: Collection[MirrorChange], *, forced: bool = False) -> None:
        self.calls["apply"] += 1
        if self.refuses_all or self.refused & {change.job.id for change in changes}:
            raise MirrorRefused("a row was not taken")
        await super().apply(changes, forced=forced)

    async def vouch(self, signs: Collection[ProgressUpdate]) -> None:
        self.calls["vouch"] += 1
        self.signs = list(signs)
        await super().vouch(signs)

    async def inbox(self, after: Any, limit: int) -> Any:
        self.calls["inbox"] += 1
        return await super().inbox(after, limit)

    async def check(self) -> str:
        if self.refuses_all:
            raise MirrorRefused("the key is not of service_role")
        return await super().check()


class Listener:
    """A webhook that can be away."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []
        self.is_away = False
        self.refuses: set[str] = set()
        self.hangs_on: set[str] = set()
        self.asked: list[str] = []

    async def send(self, notice: OutboxRow) -> None:
        self.asked.append(notice.job.id)
        if self.is_away or notice.job.id in self.hangs_on:
            raise NotDelivered("nobody listens")
        if {notice.job.id, f"{notice.job.id} {notice.event.to_status}"} & self.refuses:
            raise NoticeRefused("answered 422")
        self.told.append((notice.job.id, notice.event.kind, notice.event.to_status))


class World:
    """What survives a crash of the scheduler: disk, database, runs, time."""

    def __init__(self) -> None:
        self.disk, self.runner, self.clock = Disk(), FakeRunner(), ManualClock()
        self.database, self.listener = Database(self.clock), Listener()
        self.mirror: WatchedMirror
        self.service: Engine

    async def life(self, **settings: Any) -> Engine:
        self.mirror = WatchedMirror(self.database)
        self.service = Engine(
            journal=MemoryJournal(self.disk),
            runner=self.runner,
            clock=self.clock,
            settings=Settings(max_losses=1, retry_backoff_s=5.0, **settings),
            validator=SpecValidator(["tests.loops:*"], [Path("/tmp")]),
            mirror=self.mirror,
            webhook=self.listener,
        )
        await self.service.recover()
        return self.service

    async def submit(self, **fields: Any) -> JobId:
        job_id = str(uuid.uuid4())
        spec = JobSpec(loop="tests.loops:quick", **fields)
        return JobId((await self.service.commands.submit(job_id, spec, None))[0].job_id)

    async def relay(self) -> None:
        await self.service.sync.relay.once()

    async def vouch(self) -> None:
        await self.service.sync.heartbeat.once()

    async def settle(self) -> None:
        for _ in range(5):
            await self.service.scheduling.once()
            await asyncio.sleep(0.001)
        await self.relay()

    def row(self, job_id: str) -> Any:
        return self.database.rows[JobId(job_id)]

    def without_nodes(self) -> None:
        """Whatever is submitted waits."""
        self.runner.nodes_now = ()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.life()
    yield world
    await world.service.journal.close()  # type: ignore[attr-defined]


async def test_a_change_that_is_refused_holds_up_no_other(world: World) -> None:
    """R6: one bad row must not keep a thousand good ones out of the database."""
    world.without_nodes()
    jobs = [await world.submit() for _ in range(9)]
    world.mirror.refused = {jobs[4]}
    with pytest.raises(MirrorRefused, match="1 changes wait"):
        await world.relay()
    assert set(world.database.rows) == set(jobs) - {jobs[4]}
    assert await world.service.journal.unsent() == {jobs[4]}
    world.mirror.refused = set()
    await world.relay()
    assert await world.service.journal.outbox_size() == 0
    assert set(world.database.rows) == set(jobs)


async def test_what_is_wrong_with_all_rows_is_not_asked_about_one_by_one(world: World) -> None:
    """A wrong key would otherwise cost two requests for each row that waits."""
    world.without_nodes()
    for _ in range(50):
        await world.submit()
    world.mirror.refuses_all = True
    with pytest.raises(MirrorRefused, match="service_role"):
        await world.relay()
    assert world.mirror.calls["apply"] == 1


async def test_a_job_is_sent_once_at_its_newest_with_all_of_its_events(world: World) -> None:
    """R6: the newest state wins, and no event is dropped."""
    job_id = await world.submit()
    await world.service.scheduling.once()
    await world.service.commands.act(job_id, JobAction.CANCEL, "ann")
    await asyncio.sleep(0.01)
    world.mirror.calls.clear()
    await world.relay()
    assert world.mirror.calls["apply"] == 1
    assert world.row(job_id)["status"] == "cancelled"
    kinds = [event["kind"] for (of, _), event in sorted(world.database.events.items()) if of == job_id]
    assert kinds == ["Submitted", "Admit", "AskStop", "RunEnded"]


async def test_an_idle_scheduler_asks_as_much_of_the_database_with_many_jobs_as_with_few(
    world: World,
) -> None:
    """Otherwise a long queue would cost money while nothing happens."""
    world.without_nodes()

    async def idle_traffic() -> tuple[dict[str, int], int]:
        await world.settle()
        await world.vouch()
        world.mirror.calls.clear()
        for _ in range(3):
            await world.service.scheduling.once()
            await world.vouch()
            await world.service.sync.inbox.once()
            await world.relay()
        return dict(world.mirror.calls), len(world.mirror.signs)

    await world.submit()
    few = await idle_traffic()
    for _ in range(300):
        await world.submit()
    assert await idle_traffic() == few == ({"vouch": 3, "inbox": 3}, 0)


async def test_the_row_shows_the_place_in_the_line_and_why_it_waits(world: World) -> None:
    """What moves without a change of the job comes with the next sign."""
    world.without_nodes()
    jobs = [await world.submit() for _ in range(3)]
    await world.settle()
    await world.service.commands.act(jobs[0], JobAction.CANCEL, "ann")
    await world.settle()
    await world.vouch()
    assert [world.row(job_id)["queue_position"] for job_id in jobs[1:]] == [1, 2]
    status = await world.service.queries.status(jobs[1])
    assert world.row(jobs[1])["reason"]["message"] == status.reason.message
    assert "node" in status.reason.message


async def test_a_sign_that_was_lost_is_said_again(world: World) -> None:
    """An outage between two changes must not leave an old place in the queue for ever."""
    world.without_nodes()
    job_id = await world.submit()
    await world.settle()
    world.database.fault = lambda method: "unavailable" if method == "vouch" else None
    with pytest.raises(MirrorUnavailable):
        await world.vouch()
    world.database.fault = lambda _: None
    await world.vouch()
    assert [sign.job_id for sign in world.mirror.signs] == [job_id]


async def test_r4_rows_that_were_found_together_enter_the_line_in_their_order(world: World) -> None:
    """R4, L2: how long the check of one takes must not put it behind another."""
    world.without_nodes()
    spec = {"loop": "tests.loops:quick"}
    delays = iter([0.02, 0.01, 0.0])
    check = world.service.validator.check

    def slow_check(*arguments: Any) -> Any:
        time.sleep(next(delays))
        return check(*arguments)

    world.service.validator.check = slow_check  # type: ignore[method-assign]
    ids = []
    for _ in range(3):
        ids.append(world.database.insert_pending(spec))
        world.clock.advance(1)
    await world.service.sync.inbox.once()
    places = [(await world.service.queries.status(job_id)).queue_position for job_id in ids]
    assert places == [1, 2, 3]


async def test_of_many_jobs_that_come_back_those_that_run_come_first(world: World) -> None:
    """Else a waiting job could be placed on nodes that a row read later says are taken."""
    running = "ffffffff-ffff-4fff-bfff-ffffffffffff"  # the last to be read
    spec = JobSpec(loop="tests.loops:quick", resources=Gang(cpus_per_rank=4))
    await world.service.commands.submit(running, spec, None)
    await world.settle()
    for _ in range(450):
        await world.submit()
    await world.relay()
    world.disk = Disk()
    service = await world.life()
    first, *rest = await service.journal.outbox(1000)
    assert (first.job.id, first.job.status) == (running, "running")
    assert len(rest) == 450
    assert [job.queue_seq for job in service.registry.queued()] == sorted(
        row.job.queue_seq or 0 for row in rest
    )


async def test_a_row_that_was_written_again_has_its_signs_again(world: World) -> None:
    """What a repair wrote is the job alone: its place in the queue and why it waits come after it."""
    world.without_nodes()
    job_id = await world.submit()
    await world.settle()
    await world.vouch()
    reason = world.row(job_id)["reason"]
    world.database.delete(job_id)
    await world.service.sync.reconciler.once()
    await world.vouch()
    assert world.row(job_id)["reason"] == reason


async def test_a_journal_from_a_backup_catches_up_with_the_database(world: World) -> None:
    """What was told to the database after the backup was made is not taken back."""
    world.without_nodes()
    cancelled = await world.submit()
    await world.settle()
    backup = copy.deepcopy(world.disk)
    await world.service.commands.act(cancelled, JobAction.CANCEL, "ann")
    later_on = await world.submit()
    await world.settle()
    before = copy.deepcopy(world.database.rows)

    world.disk = backup
    service = await world.life()
    await world.settle()
    assert (await service.queries.status(cancelled)).status == "cancelled"
    assert (await service.queries.status(later_on)).status == "queued"
    assert all(world.row(job_id)["version"] > before[job_id]["version"] for job_id in before)
    assert (await service.sync.reconcile(dry_run=True)).repairs == []


async def test_a_run_that_nobody_knows_is_not_ended_before_the_database_was_read(world: World) -> None:
    """R1: journal lost and database away: the runs of a whole cluster must not be killed on a guess."""
    job_id = await world.submit()
    await world.settle()
    world.disk = Disk()
    world.database.fault = lambda _: "unavailable"
    service = await world.life()
    await service.supervisor.once()
    await asyncio.sleep(0.01)
    assert world.runner.stopped == []
    world.database.fault = lambda _: None
    await service.sync.reconciler.once()
    await service.supervisor.once()
    assert (await service.queries.status(job_id)).status == "running"
    assert world.runner.stopped == []


async def test_a_run_that_neither_journal_nor_database_knows_goes_on_with_its_job(world: World) -> None:
    """R1: the database was away for so long that it never heard of the job; its run proves it."""
    world.database.fault = lambda _: "unavailable"
    job_id = str(uuid.uuid4())
    await world.service.commands.submit(job_id, JobSpec(loop="tests.loops:quick"), None)
    for _ in range(3):
        await world.service.scheduling.once()
        await asyncio.sleep(0.001)
    world.database.fault = lambda _: None
    world.disk = Disk()
    service = await world.life()
    assert (await service.queries.status(job_id)).status == "running"
    assert world.runner.stopped == []
    await world.relay()
    assert world.row(job_id)["status"] == "running"


async def test_a_row_that_had_not_heard_of_a_live_run_does_not_end_it(world: World) -> None:
    """R1: the row says that the job waits; its run, which lives, knows better."""
    nodes = world.runner.nodes_now
    world.without_nodes()
    job_id = await world.submit()
    await world.settle()
    assert world.row(job_id)["status"] == "queued"
    world.database.fault = lambda _: "unavailable"
    world.runner.nodes_now = nodes
    for _ in range(3):
        await world.service.scheduling.once()
        await asyncio.sleep(0.001)
    world.database.fault = lambda _: None
    world.disk = Disk()
    service = await world.life()
    assert (await service.queries.status(job_id)).status == "running"
    assert world.runner.stopped == []
    assert len(world.runner.started) == 1


@pytest.mark.parametrize(
    "policy, status, held", [("start", "queued", 0), ("hold", "queued", 1), ("fail", "failed", 0)]
)
async def test_r10_what_becomes_of_waiting_jobs_after_an_outage_is_a_setting(
    world: World, policy: str, status: str, held: int
) -> None:
    """R10: an outage is a silence of more than `stale_after_s`; a restart within it changes nothing."""
    world.without_nodes()
    job_id = await world.submit()
    await world.settle()
    await world.vouch()
    world.clock.advance(500)
    service = await world.life(recover_queued=policy)
    assert (await service.queries.status(job_id)).reason.code != "held"
    await world.vouch()
    world.clock.advance(700)
    service = await world.life(recover_queued=policy)
    world.runner.nodes_now = FakeRunner().nodes_now
    await world.settle()
    after = await service.queries.status(job_id)
    assert after.status == ("running" if policy == "start" else status)
    assert (after.reason.code == "held") == bool(held)
    if held:
        await service.commands.act(job_id, JobAction.FORCE_START, "ann")
        await world.settle()
        assert (await service.queries.status(job_id)).status == "running"


async def test_r10_whoever_runs_the_cluster_is_told_what_the_system_did(world: World) -> None:
    """R10: once for each, in order, also when nobody listened at the time; a user's own failure is no news."""
    lost, broken = await world.submit(), await world.submit()
    await world.settle()
    world.listener.is_away = True
    world.runner.end((lost, Fence(1)), LOST)
    world.runner.end((broken, Fence(1)), failed())
    await world.settle()
    world.database.insert(JobId(str(uuid.uuid4())), status="running", spec={"loop": "sft"})
    world.clock.advance(700)
    await world.service.sync.reconciler.once()
    with pytest.raises(NotDelivered):
        await world.service.sync.notifier.once()
    await world.life()
    world.listener.is_away = False
    await world.service.sync.notifier.once()
    assert [(kind, status) for _, kind, status in world.listener.told] == [
        ("RunEnded", "queued"),
        ("GiveUp", "failed"),
    ]
    assert await world.service.sync.notifier.once() == 0


async def lose(world: World, *jobs: JobId, fence: int = 1) -> None:
    """One run of each job is lost: news, once for each."""
    for job_id in jobs:
        world.runner.end((job_id, Fence(fence)), LOST)
    await world.settle()


async def notify(world: World, after_s: float = 0.0) -> int:
    world.clock.advance(after_s)
    return await world.service.sync.notifier.once()


async def test_a_notice_that_is_refused_for_ever_holds_up_no_other(world: World) -> None:
    """R10: one answer 422 kept everything later from being told; those of its own job keep their order."""
    jobs = [await world.submit() for _ in range(4)]
    await world.settle()
    await lose(world, *jobs)
    world.listener.refuses = {jobs[0]}
    assert await notify(world) == 3
    assert {job for job, _, _ in world.listener.told} == set(jobs[1:])
    world.clock.advance(10)
    await world.settle()  # tried again, and lost for good
    await lose(world, *jobs, fence=2)
    assert await notify(world) == 3
    assert [job for job, _, _ in world.listener.told].count(jobs[0]) == 0
    (problem,) = [words for words in world.service.problems() if "webhook" in words]
    assert jobs[0] in problem
    assert "422" in problem
    world.listener.refuses = set()
    assert await notify(world, 600) == 2
    assert [to for job, _, to in world.listener.told if job == jobs[0]] == ["queued", "failed"]
    assert world.service.sync.notifier.problem() is None


async def test_later_notices_of_a_job_wait_behind_the_one_that_is_refused(world: World) -> None:
    """R10: else `failed` is told, and then, hours later, that the job was recovered."""
    job_id = await world.submit()
    await world.settle()
    await lose(world, job_id)
    world.clock.advance(10)
    await world.settle()
    await lose(world, job_id, fence=2)
    world.listener.refuses = {f"{job_id} queued"}
    for _ in range(5):
        assert await notify(world, 0.1) == 0
    assert world.listener.told == []
    world.listener.refuses = set()
    assert await notify(world, 600) == 2
    assert [to for _, _, to in world.listener.told] == ["queued", "failed"]


async def test_a_refused_notice_is_tried_with_growing_pauses_and_given_up_once(world: World) -> None:
    """R10: nothing is lost silently: it is counted, named, kept, and tried again by the next life."""
    odd, fine = await world.submit(), await world.submit()
    await world.settle()
    await lose(world, odd)
    world.listener.refuses = {odd}
    for _ in range(100):
        await notify(world, 3600)
    assert world.service.sync.notifier.given_up == 0, (
        "the receiver took nothing else: it is not about this one"
    )
    await lose(world, fine)
    assert await notify(world) == 1
    await notify(world, 86_400)
    assert (world.service.sync.notifier.refused, world.service.sync.notifier.given_up) == (0, 1)
    tries = len(world.listener.asked)
    for _ in range(3):
        await notify(world, 86_400)
    assert len(world.listener.asked) == tries, "given up means not sent again"
    assert world.service.sync.notifier.problem() is None, "named for a day; counted for longer"
    assert len(world.disk.notices) == 1
    await world.life()
    world.listener.refuses = set()
    assert await notify(world) == 1
    assert world.disk.notices == {}


async def test_pauses_grow_and_are_bounded(world: World) -> None:
    """R10: a receiver is not asked every second for three days."""
    odd = await world.submit()
    await world.settle()
    await lose(world, odd)
    world.listener.refuses = {odd}
    for _ in range(3600):
        await notify(world, 1)
    assert 5 <= len(world.listener.asked) <= 25


async def test_a_notice_on_which_the_receiver_hangs_holds_up_no_other(world: World) -> None:
    """R10: the same without an answer: the next pass begins with another one."""
    odd, fine = await world.submit(), await world.submit()
    await world.settle()
    await lose(world, odd, fine)
    world.listener.hangs_on = {odd}
    with pytest.raises(NotDelivered):
        await notify(world)
    assert await notify(world, 0.5) == 1
    assert [job for job, _, _ in world.listener.told] == [fine]


async def test_a_receiver_that_refuses_everything_is_not_asked_about_everything(world: World) -> None:
    """R10: a wrong secret with thousands of notices must not be thousands of requests in each pass."""
    world.runner.nodes_now = (Node(id=NodeId("node-1"), name="node-1", cpus=20.0),)
    await world.service.scheduling.once()
    jobs = [await world.submit() for _ in range(20)]
    await world.settle()
    await lose(world, *jobs)
    world.listener.refuses = set(jobs)
    with pytest.raises(NotDelivered, match="3 notices in a row"):
        await notify(world)
    assert len(world.listener.asked) == 3


@pytest.mark.parametrize(
    "altered",
    [{"status": "failed"}, {"version": 99}, {"status": "cancelled", "version": 1}, {"job": {"id": "?"}}],
    ids=["status", "version", "both", "copy"],
)
async def test_a_finished_row_that_was_altered_is_put_right_and_recorded(world: World, altered: Any) -> None:
    """P1, R7: whoever made `completed` to `failed` by hand did not change what the job is; once, and then no more."""
    job_id, honest = await world.submit(), await world.submit()
    await world.settle()
    for one in (job_id, honest):
        world.runner.end((one, Fence(1)), COMPLETED)
    await world.settle()
    before = copy.deepcopy(world.row(job_id))
    untouched = copy.deepcopy(world.row(honest))
    world.database.set(job_id, **altered)
    foretold = await world.service.sync.reconcile(dry_run=True)
    assert [repair.job_id for repair in foretold.repairs] == [job_id]
    done = await world.service.sync.reconcile(dry_run=False)
    assert [repair.job_id for repair in done.repairs] == [job_id]
    assert {**world.row(job_id), "updated_at": ""} == {**before, "updated_at": ""}
    assert world.row(honest) == untouched
    assert [repair.job_id for repair in (await world.service.queries.repairs(None, 10)).repairs] == [job_id]
    assert (await world.service.sync.reconcile(dry_run=False)).repairs == []


async def test_a_row_that_the_database_does_not_take_keeps_no_other_from_being_put_right(
    world: World,
) -> None:
    """R6, R7: the repair is written down once, however often it is tried."""
    world.without_nodes()
    jobs = [await world.submit() for _ in range(5)]
    await world.relay()
    for job_id in jobs:
        world.database.set(job_id, status="running")
    world.mirror.refused = {jobs[0], jobs[3]}
    for _ in range(3):
        with pytest.raises(MirrorRefused, match="2 rows could not be repaired"):
            await world.service.sync.reconcile(dry_run=False)
    assert [world.row(job_id)["status"] for job_id in jobs] == [
        "running",
        "queued",
        "queued",
        "running",
        "queued",
    ]
    assert len((await world.service.queries.repairs(None, 100)).repairs) == 5
    world.mirror.refused = set()
    await world.service.sync.reconcile(dry_run=False)
    assert {world.row(job_id)["status"] for job_id in jobs} == {"queued"}
    assert len((await world.service.queries.repairs(None, 100)).repairs) == 5


@pytest.mark.parametrize("altered", [{"status": "failed"}, {"job": {"id": "?"}}], ids=["status", "copy"])
async def test_an_altered_row_of_a_job_that_a_lost_journal_knew(world: World, altered: Any) -> None:
    """P1: the scheduler's own copy is the truth about it; without one a finished row is left alone."""
    job_id = await world.submit()
    await world.settle()
    world.runner.end((job_id, Fence(1)), COMPLETED)
    await world.settle()
    world.database.set(job_id, **altered)
    world.disk = Disk()
    world.clock.advance(10_000)
    await world.life()
    await world.relay()
    has_copy = "job" not in altered
    assert world.row(job_id)["status"] == "completed"
    assert (JobId(job_id) in world.disk.jobs) == has_copy


async def test_old_history_is_pruned_in_journal_and_database(world: World) -> None:
    """O5: by the setting, in small batches, counted; jobs and attempts stay, and what is young is whole."""
    old = [await world.submit() for _ in range(3)]
    await world.settle()
    for job_id in old:
        world.runner.end((job_id, Fence(1)), COMPLETED)
    await world.settle()
    world.clock.advance(91 * 86_400)
    young = await world.submit()
    await world.settle()
    world.runner.end((young, Fence(1)), COMPLETED)
    await world.settle()
    pruner = world.service.sync.pruner
    await pruner.once()
    assert [len(world.disk.events[JobId(job_id)]) for job_id in [*old, young]] == [1, 1, 1, 3]
    left = Counter(job_id for job_id, _ in world.database.events)
    assert [left[JobId(job_id)] for job_id in [*old, young]] == [1, 1, 1, 3]
    assert pruner.events == 6
    assert len(world.disk.jobs) == len(world.database.rows) == 4
    page = await world.service.queries.events(old[0])
    assert [event.version for event in page.events] == [3]
    assert "SCHEDULER_KEEP_DAYS" in (page.note or "")
    assert (await world.service.queries.events(young)).note is None
    await pruner.once()
    assert pruner.events == 6
    assert (await world.service.sync.reconcile(dry_run=False)).repairs == [], (
        "what was pruned is no difference"
    )


async def test_a_database_that_is_away_keeps_the_journal_from_nothing(world: World) -> None:
    """O5: the journal is pruned first; the database with the next pass."""
    job_id = await world.submit()
    await world.settle()
    world.runner.end((job_id, Fence(1)), COMPLETED)
    await world.settle()
    world.clock.advance(91 * 86_400)
    world.database.fault = lambda method: "unavailable" if method == "prune" else None
    with pytest.raises(MirrorUnavailable):
        await world.service.sync.pruner.once()
    assert len(world.disk.events[JobId(job_id)]) == 1
    world.database.fault = lambda _: None
    await world.service.sync.pruner.once()
    assert len(world.database.events) == 1


async def test_l10_a_dry_run_says_what_it_would_do_and_does_nothing(world: World) -> None:
    """L10"""
    job_id = world.database.insert(JobId(str(uuid.uuid4())), status="running", spec={"loop": "sft"})
    world.clock.advance(700)
    rows, writes = copy.deepcopy(world.database.rows), world.disk.num_writes
    would = await world.service.sync.reconcile(dry_run=True)
    assert [repair.job_id for repair in would.repairs] == [job_id]
    assert (world.database.rows, world.disk.num_writes) == (rows, writes)
    did = await world.service.sync.reconcile(dry_run=False)
    assert [one.decided for one in did.repairs] == [one.decided for one in would.repairs]
    assert (await world.service.sync.reconcile(dry_run=False)).repairs == []
    assert [one.job_id for one in (await world.service.queries.repairs(None, 10)).repairs] == [job_id]


async def test_an_older_life_that_wakes_up_ends_no_run_of_its_successor(world: World) -> None:
    """A frozen scheduler knows none of the runs that came since: to it they look like nobody's."""
    older = world.service
    await world.life()
    await world.submit()
    await world.settle()
    with pytest.raises(Superseded):
        await older.supervisor.once()
    await asyncio.sleep(0.01)
    assert world.runner.stopped == []


async def test_an_older_life_is_refused_by_the_database(world: World) -> None:
    """Two journals, one cluster name: the newest claim wins."""
    older, journal = world.service, world.disk
    world.disk = Disk()
    await world.life()
    world.disk = journal
    await older.commands.submit(str(uuid.uuid4()), JobSpec(loop="tests.loops:quick"), None)
    with pytest.raises(Superseded):
        await older.sync.relay.once()
    assert world.database.rows == {}


async def test_l4_a_row_whose_spec_cannot_be_read_is_refused_in_words(world: World) -> None:
    """L4: 400 when the stored spec is missing or invalid."""
    for spec, words in [({"lop": "sft"}, "loop"), (None, "write the job's spec as a JSON object")]:
        job_id = world.database.insert(JobId(str(uuid.uuid4())), status="failed", spec=spec)
        with pytest.raises(NotAllowed, match=words):
            await world.service.commands.act(job_id, JobAction.FORCE_START, "ann")


@pytest.mark.parametrize("wrappings", [1, 2, 3])
async def test_b4_a_spec_that_a_front_end_wrote_as_text_is_the_object_in_it(
    world: World, wrappings: int
) -> None:
    """B4: whoever serializes what the library serializes again means the object, and gets no job that failed."""
    spec: Any = {"loop": "tests.loops:quick", "config": {"steps": 3}}
    for _ in range(wrappings):
        spec = json.dumps(spec)
    job_id = world.database.insert_pending(spec)
    await world.service.sync.inbox.once()
    await world.settle()
    job = await world.service.store.find(job_id)
    assert job is not None
    assert (job.spec.loop, job.spec.config) == ("tests.loops:quick", {"steps": 3})
    assert world.row(job_id)["spec"]["config"] == {"steps": 3}


@pytest.mark.parametrize(
    "text", ["no JSON", "[1]", '"x"', json.dumps({"loop": "sft"})[:-1], "[" * 100_000, '"' + "x" * 1_000_001]
)
async def test_b4_a_text_that_holds_no_spec_is_refused_in_words(world: World, text: str) -> None:
    job_id = world.database.insert_pending(text)  # type: ignore[arg-type]
    await world.service.sync.inbox.once()
    await world.settle()
    reason = world.row(job_id)["reason"]
    assert reason["code"] == "invalid_spec"
    assert "write the job's spec as a JSON object" in reason["message"]


async def test_b4_the_spec_that_runs_names_the_file_that_was_checked(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B4: for a front end's row as for a submit; `~` is the scheduler's home, and no loop looks for it again."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write_sft_inputs(tmp_path)
    vars(world.service.validator).update(vars(SpecValidator([], [tmp_path])))
    spec = {"loop": "sft", "config": {"model": "~/model", "dataset": "~/../" + tmp_path.name + "/good.jsonl"}}
    job_id = world.database.insert_pending(spec)
    await world.service.sync.inbox.once()
    await world.settle()
    submitted, _ = await world.service.commands.submit(str(uuid.uuid4()), SPEC.validate_python(spec), None)
    adopted = await world.service.store.find(job_id)
    assert adopted is not None
    for config in (adopted.spec.config, submitted.spec.config, world.row(job_id)["spec"]["config"]):
        assert (config["model"], config["dataset"]) == (str(tmp_path / "model"), str(tmp_path / "good.jsonl"))


async def test_b4_what_the_door_could_not_read_in_time_is_in_the_history(
    world: World, tmp_path: Path
) -> None:
    """A job that may yet meet a bad line must not look as one that was checked to the end."""
    write_sft_inputs(tmp_path)
    vars(world.service.validator).update(vars(SpecValidator([], [tmp_path], read_s=0.0)))
    config = {"model": str(tmp_path / "model"), "dataset": str(tmp_path / "good.jsonl")}
    job, _ = await world.service.commands.submit(str(uuid.uuid4()), JobSpec(loop="sft", config=config), None)
    events = await world.service.queries.events(job.job_id)
    assert "the first 1 conversations were checked" in events.events[0].reason.message


def write_sft_inputs(folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    (folder / "good.jsonl").write_text((json.dumps({"messages": turns}) + "\n") * 3)


async def test_a_journal_that_was_lost_gets_the_attempts_back(world: World) -> None:
    job_id = await world.submit()
    await world.settle()
    world.runner.end((job_id, Fence(1)), LOST)
    await world.settle()
    world.clock.advance(60)
    await world.settle()
    before = await MemoryJournal(copy.deepcopy(world.disk)).attempts(job_id)
    world.disk = Disk()
    await world.life()
    assert await MemoryJournal(copy.deepcopy(world.disk)).attempts(job_id) == before
    assert [(run.fence, run.ending) for run in before] == [(1, "lost"), (2, None)]


async def test_a_run_that_nobody_saw_end_is_over_when_its_job_is_given_up(world: World) -> None:
    """Else its row would run for ever."""
    job_id = await world.submit()
    await world.settle()
    world.disk, world.runner = Disk(), FakeRunner()
    world.clock.advance(7_000)
    await world.life()
    await world.relay()
    assert world.row(job_id)["reason"]["code"] == "stale"
    (run,) = await MemoryJournal(copy.deepcopy(world.disk)).attempts(job_id)
    assert (run.ending, run.reason and run.reason.code, run.steps_lost) == ("lost", "stale", None)
    assert world.database.attempts[job_id, 1]["ending"] == "lost"
