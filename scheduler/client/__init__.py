"""The Python client, blocking and async, over HTTP alone.  All times are in seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, Unpack

from scheduler.api.arrays import ArrayDocument
from scheduler.api.forecasts import PlanAnswer
from scheduler.api.jobs import ForceStartAnswer, JobDocument
from scheduler.api.projects import ProjectDocument, ProjectList, ShareChanges
from scheduler.client.async_client import AsyncClient as AsyncClient
from scheduler.client.async_handle import AsyncJobHandle as AsyncJobHandle
from scheduler.client.blocking_client import Client as Client
from scheduler.client.blocking_handle import JobHandle as JobHandle
from scheduler.client.connection import Filters, Spec, SpecFields, TrainFunction, Watch
from scheduler.settings import ClientSettings

# `scheduler.submit(...)` and friends: the same through one client for each address.


def submit(
    spec: Spec | TrainFunction | None = None,
    *,
    idempotency_key: str | None = None,
    **fields: Unpack[SpecFields],
) -> JobHandle:
    """`Client.submit` on the scheduler at `SCHEDULER_URL`."""
    return _client().submit(spec, idempotency_key=idempotency_key, **fields)


def submit_array(
    parameters: Mapping[str, Sequence[Any]],
    spec: Spec | TrainFunction | None = None,
    *,
    at_most: int | None = None,
    metric: str = "loss",
    metric_is: Literal["min", "max"] = "min",
    idempotency_key: str | None = None,
    **fields: Unpack[SpecFields],
) -> ArrayDocument:
    """`Client.submit_array` on the scheduler at `SCHEDULER_URL`."""
    return _client().submit_array(
        parameters,
        spec,
        at_most=at_most,
        metric=metric,
        metric_is=metric_is,
        idempotency_key=idempotency_key,
        **fields,
    )


def array(array_id: str) -> ArrayDocument:
    """`Client.array` on the scheduler at `SCHEDULER_URL`."""
    return _client().array(array_id)


def cancel_array(array_id: str) -> ArrayDocument:
    """`Client.cancel_array` on the scheduler at `SCHEDULER_URL`."""
    return _client().cancel_array(array_id)


def plan(spec: Spec | TrainFunction | None = None, **fields: Unpack[SpecFields]) -> PlanAnswer:
    """`Client.plan` on the scheduler at `SCHEDULER_URL`."""
    return _client().plan(spec, **fields)


def get(job_id: str) -> JobHandle:
    """`Client.get` on the scheduler at `SCHEDULER_URL`."""
    return _client().get(job_id)


def list_jobs(**filters: Unpack[Filters]) -> Iterator[JobDocument]:
    """`Client.list_jobs` on the scheduler at `SCHEDULER_URL`."""
    return _client().list_jobs(**filters)


def wait(
    job_id: str, timeout_s: float | None = None, *, progress: bool = False, **watch: Unpack[Watch]
) -> JobDocument:
    """`Client.wait` on the scheduler at `SCHEDULER_URL`."""
    return _client().wait(job_id, timeout_s, progress=progress, **watch)


def cancel(job_id: str) -> JobDocument:
    """`Client.cancel` on the scheduler at `SCHEDULER_URL`."""
    return _client().cancel(job_id)


def force_start(job_id: str, preempt: bool = False) -> ForceStartAnswer:
    """`Client.force_start` on the scheduler at `SCHEDULER_URL`."""
    return _client().force_start(job_id, preempt)


def projects() -> ProjectList:
    """`Client.projects` on the scheduler at `SCHEDULER_URL`."""
    return _client().projects()


def set_project(name: str, **share: Unpack[ShareChanges]) -> ProjectDocument:
    """`Client.set_project` on the scheduler at `SCHEDULER_URL`."""
    return _client().set_project(name, **share)


def forget_project(name: str) -> ProjectDocument:
    """`Client.forget_project` on the scheduler at `SCHEDULER_URL`."""
    return _client().forget_project(name)


def _client() -> Client:
    settings = ClientSettings()
    return _client_at(settings.url, settings.token.get_secret_value() if settings.token else None)


@lru_cache(maxsize=8)
def _client_at(url: str, token: str | None) -> Client:
    return Client(url, token)
