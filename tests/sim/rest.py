"""What is still not as it should be, once nothing disturbs any more."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pydantic_core import from_json

from scheduler.core.model import ATTEMPT, EVENT, JOB, Job, JobId, Json, Status
from scheduler.engine.service import Engine

if TYPE_CHECKING:
    from tests.sim.world import World


def unrest(world: World) -> list[str]:
    """In words; empty when all agree and nothing waits."""
    life = world.life
    if life is None or life.service is None or life.process.is_dead:
        return ["nobody serves"]
    return [
        *(f"{old.process.name} still lives" for old in world.lives[:-1] if not old.process.is_dead),
        *_waiting(world),
        *(words for loop in life.service.tasks if (words := loop.problem())),
        *_jobs(world, life.service),
        *_shadow(life.service),
        *_answers(world, life.service),
        *(_copies(world) if world.scenario.has_database else ()),
        *_promises(world),
    ]


def _waiting(world: World) -> Iterator[str]:
    if world.disk.outbox:
        yield f"{len(world.disk.outbox)} changes are in the outbox"
    if world.disk.notices:
        yield f"{len(world.disk.notices)} notices were not delivered"
    for job_id, version in sorted(world.checks.ledger.news - world.listener.heard):
        yield f"nobody was told of version {version} of job {job_id}"


def _shadow(service: Engine) -> Iterator[str]:
    shadow = service.shadow.document()
    if shadow and shadow.faults:
        yield f"the policy in shadow failed {shadow.faults} times: {shadow.problem}"


def _jobs(world: World, service: Engine) -> Iterator[str]:
    journal = {job.id: job for job in world.disk.all_jobs()}
    for job in journal.values():
        if not (
            job.status.is_terminal or job.status is Status.PAUSED or job.held or _has_to_wait(job, journal)
        ):
            yield f"job {job.id} is {job.status}, version {job.version}: {job.reason.message}"
    memory = {job.id: job for job in service.registry.active()}
    if memory != {job.id: job for job in journal.values() if not job.status.is_terminal}:
        yield "registry and journal disagree"
    for job in service.registry.queued():
        if service.views.waits(job.id) is None:
            yield f"job {job.id} waits, and nobody can say why"
    if world.checks.ledger.is_alone:
        yield from _open_attempts(world)
    if live := world.cluster.alive:
        yield f"runs {sorted(live)} are alive"


def _has_to_wait(job: Job, journal: Mapping[JobId, Job]) -> bool:
    """For another that a person keeps; whether that one is at rest is its own matter."""
    parents = [journal.get(JobId(after.job)) for after in job.spec.after]
    return job.status is Status.QUEUED and any(parent and not parent.status.is_terminal for parent in parents)


def _answers(world: World, service: Engine) -> Iterator[str]:
    """What people are shown of each job, as strict readers of JSON take it: one that cannot be shown takes a list down."""
    for job in (service.registry.get(job_id) for job_id in world.disk.jobs):
        if job is None:
            continue
        try:
            from_json(service.views.document(job).model_dump_json())
        except ValueError as error:
            yield f"job {job.id} cannot be shown: {error}"


def _open_attempts(world: World) -> Iterator[str]:
    """Where a journal was lost, the end of an attempt may be known to another one alone."""
    for job_id, runs in world.disk.attempts.items():
        for fence, doc in runs.items():
            if ATTEMPT.validate_json(doc).ended_at is None:
                yield f"attempt {fence} of job {job_id} began, and has no end"


def _copies(world: World) -> Iterator[str]:
    yield from _rows(world)
    yield from _events(world)
    if world.checks.ledger.is_first:
        yield from _attempts(world)


def _rows(world: World) -> Iterator[str]:
    journal = {job.id: job for job in world.disk.all_jobs()}
    for job in journal.values():
        row = world.database.rows.get(job.id)
        if row is None:
            yield f"job {job.id} has no row"
        elif not _is_known_to_be_over(world, job, row):
            yield from _differences(job, row, trusted=not world.checks.copies.is_by_hand(job.id))
    for job_id, row in world.database.rows.items():
        waits_for_a_person = Status(row["status"]).is_terminal or row["status"] == Status.PAUSED
        if job_id not in journal and not waits_for_a_person:
            yield f"the row of job {job_id} is {row['status']}, and the journal does not know it"
        if job_id in journal and _contradicts_itself(row):
            yield f"the finished row of job {job_id} was altered, and is not put right yet"
        if row["requested_action"]:
            yield f"somebody asked to {row['requested_action']} job {job_id}, and nothing happened"


def _contradicts_itself(row: Json) -> bool:
    """A finished row whose copy says something else: somebody altered one of the two."""
    copy = row["job"]
    says = copy and (copy.get("status"), copy.get("version"))
    return Status(row["status"]).is_terminal and copy is not None and says != (row["status"], row["version"])


def _is_known_to_be_over(world: World, job: Job, row: Json) -> bool:
    """A backup says how the job had ended, and it was started again, and ended, after that: no reconciler reads the
    history, so each keeps its end."""
    both_ended = job.status.is_terminal and Status(row["status"]).is_terminal
    return both_ended and row["version"] > job.version and not world.checks.ledger.is_alone


def _differences(job: Job, row: Json, *, trusted: bool) -> Iterator[str]:
    copy = json.loads(JOB.dump_json(job))
    wanted = {
        "status": copy["status"],
        "version": copy["version"],
        "attempt": copy["fence"],
        "spec": copy["spec"] if copy["raw_spec"] is None else copy["raw_spec"],
        "finished_at": copy["finished_at"],
        "job": copy,
    }
    for column, value in wanted.items():
        if row[column] != value and (trusted or column != "job"):
            yield f"{column} of job {job.id} is {row[column]} in its row, and {value} in the journal"


def _events(world: World) -> Iterator[str]:
    ledger = world.checks.ledger
    for job_id, docs in world.disk.events.items():
        versions = [EVENT.validate_json(doc).version for doc in docs]
        if versions != ledger.events[job_id]:
            yield f"the journal has events {versions} of job {job_id}; {ledger.events[job_id]} were written"
        for version, doc in zip(versions, docs, strict=True):
            row = world.database.events.get((job_id, version))
            if row is None or not _is_told(world, json.loads(doc), row):
                yield f"event {version} of job {job_id} is {row} in the database, and {doc.decode()} in the journal"
    if ledger.is_first and (
        extra := [key for key in world.database.events if key[0] not in world.disk.events]
    ):
        yield f"the database has events {extra} of jobs that nobody knows"


def _attempts(world: World) -> Iterator[str]:
    journal = {
        (job_id, int(fence)): json.loads(doc)
        for job_id, runs in world.disk.attempts.items()
        for fence, doc in runs.items()
    }
    for run in journal.keys() | world.database.attempts.keys():
        ours, theirs = journal.get(run), world.database.attempts.get(run)
        if ours is None or theirs is None or any(theirs[name] != ours[name] for name in OF_AN_END):
            yield f"attempt {run} is {theirs} in the database, and {ours} in the journal"


OF_AN_END = ("ended_at", "ending", "reason", "resumed", "saved", "steps_lost")


def _is_told(world: World, event: Json, row: Json) -> bool:
    """As the journal has it; or, where two schedulers with journals of their own met, as one of them had it."""
    line = {name: value for name, value in event.items() if name != "attempt"}
    return row == line | {"cluster": "default"} or (
        not world.checks.ledger.is_first
        and world.checks.has_said(row["job_id"], row["version"], row["to_status"])
    )


def _promises(world: World) -> Iterator[str]:
    for job_id in sorted(world.checks.promises.accepted_ids):
        row = world.database.rows.get(job_id)
        if job_id not in world.disk.jobs and row is None:
            yield f"job {job_id} was accepted, and is gone"
    for job_id in sorted(world.checks.promises.withdrawn):
        doc = world.disk.jobs.get(job_id)
        status = JOB.validate_json(doc).status if doc else Status.CANCELLED
        if status not in (Status.CANCELLED, Status.COMPLETED):
            yield f"job {job_id} was cancelled, and is {status}"
