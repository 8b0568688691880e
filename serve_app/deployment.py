"""The API as a Ray Serve application: one replica in front of the scheduler actor."""

from __future__ import annotations

from fastapi import FastAPI
from ray import serve

from scheduler.adapters.supabase import mirror_of
from scheduler.ports import Mirror
from scheduler.settings import Settings
from serve_app import request_body
from serve_app.app import create_app
from serve_app.remote_scheduler import remote

OTHERS = 1000
"""Requests that a replica may answer at once beside all the streams and half-sent bodies that it lets in."""


@serve.deployment(
    name="Api",
    num_replicas=1,
    graceful_shutdown_timeout_s=5,
    ray_actor_options={"num_cpus": 0},
    logging_config={"enable_access_log": False},
)
@serve.ingress()
class Api:
    """Builds the app inside the replica, so that nothing but names and settings is pickled."""

    def __init__(self, settings: Settings, actor_name: str, namespace: str) -> None:
        self._settings = settings
        self._scheduler = remote(actor_name, namespace)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._scheduler, self._settings, _database(self._settings))


def _database(settings: Settings) -> Mirror | None:
    """For reading alone: the scheduler actor is the one writer."""
    return mirror_of(settings, settings.list_budget_s)


def bind(settings: Settings, actor_name: str, namespace: str) -> serve.Application:
    """For `serve.run(..., name="scheduler", route_prefix="/")`; *namespace* is the actor's."""
    slots = settings.max_streams + request_body.MOST_UNDER_WAY + OTHERS
    return Api.options(max_ongoing_requests=slots).bind(settings, actor_name, namespace)
