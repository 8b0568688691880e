"""The process that `scheduler up` leaves behind: it sees to the actor and the API, and stays as Ray's driver.

It must stay: Ray ends the prepared processes of a driver that has gone.  If it dies, jobs, the registry and the
API go on; the starts get cold, and nobody brings back what Ray itself does not restart.  Another one, started by
`scheduler up`, finds all of it.
"""

from __future__ import annotations

import argparse
import logging
import random
import time
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.schema import ApplicationStatus, ProxyStatus

from scheduler.engine.periodic import Backoff
from scheduler.runs.ray_internals import is_made_of
from scheduler.runs.warm_worker import prepare_cluster
from scheduler.server.actor import ACTOR_NAME, SchedulerActor, default_roots, namespace, run_environment
from scheduler.settings import Settings
from serve_app.deployment import bind

APP_NAME = "scheduler"
EVERY_S = 10.0
CONNECT_WITHIN_S = 60.0
READY_WITHIN_S = 60.0
HEAD = {"node:__internal_head__": 0.001}
GOES_ON_BY_ITSELF = (ApplicationStatus.RUNNING, ApplicationStatus.DEPLOYING, ApplicationStatus.UNHEALTHY)
"""Serve is at work on it, or serves: to deploy it once more would only end the streams that are open."""
log = logging.getLogger("scheduler.server.driver")  # not __name__: it runs as __main__


def connect(address: str, settings: Settings) -> None:
    """Ray's port answers before its first node has signed in: on a busy machine that takes a while."""
    until_s = time.monotonic() + CONNECT_WITHIN_S
    while True:
        try:
            ray.init(address=address, namespace=namespace(settings.cluster), log_to_driver=False)
            return
        except ConnectionError as error:
            if time.monotonic() > until_s:
                raise
            log.info("waiting for Ray at %s: %s", address, error)
            time.sleep(1.0)


class Driver:
    """Puts right what is missing of actor and API, pass by pass; what is there is left as it is."""

    def __init__(self, settings: Settings, working_dir: Path) -> None:
        self._settings, self._roots = settings, default_roots(settings, working_dir)
        self._backoff = Backoff(first_s=1.0, max_s=60.0, chance=random.random)
        self._failures = 0
        self._preparation: Any = None
        self._has_old_api = False

    def stay(self) -> None:
        """For ever."""
        while True:
            time.sleep(self.pass_once())

    def pass_once(self) -> float:
        """Returns after how many seconds to look again."""
        for what, step in (("the scheduler actor", self._see_to_actor), ("the API", self._see_to_api)):
            try:
                step()
            except Exception as error:  # noqa: BLE001  whatever it is, it is said, and tried again
                self._failures += 1
                pause_s = self._backoff.pause_s(self._failures)
                log.warning("%s is not up (%s: %s); retry in %.1f s", what, *_named(error), pause_s)
                return pause_s
        if self._failures:
            log.info("actor and API are up again")
        self._failures = 0
        return EVERY_S

    def _see_to_actor(self) -> None:
        """Also tells it that, as long as this process lives, preparing processes is worth while."""
        actor = self._actor()
        if not is_made_of(actor, SchedulerActor):
            self._end_old_release(actor)
            raise RuntimeError("it was of another release, and is made anew")
        if self._preparation is None:
            log.info("the scheduler actor is up, incarnation %s", _get(actor.ready, READY_WITHIN_S))
            self._preparation = self._prepare_cluster()
        if self._is_prepared():
            _get(actor.keep_warm, EVERY_S, 3 * EVERY_S)

    def _is_prepared(self) -> bool:
        """Before that, what prepares the cluster would take the first processes that are kept for runs."""
        return bool(ray.wait([self._preparation], timeout=0)[0])

    def _prepare_cluster(self) -> Any:
        environment = {"env_vars": run_environment(self._settings)}
        options = {"num_cpus": 0, "resources": HEAD, "runtime_env": environment}
        return ray.remote(prepare_cluster).options(**options).remote()

    def _end_old_release(self, actor: Any) -> None:
        """The next pass makes it anew from this release, and the API with it.  Runs go on: their actors are others."""
        ray.kill(actor, no_restart=True)
        self._has_old_api, self._preparation = True, None

    def _actor(self) -> Any:
        settings = self._settings
        return (
            ray.remote(SchedulerActor)
            .options(
                name=ACTOR_NAME,
                namespace=namespace(settings.cluster),
                lifetime="detached",
                get_if_exists=True,
                max_restarts=-1,
                max_task_retries=0,
                num_cpus=0,
                resources=HEAD,
            )
            .remote(settings, self._roots)
        )

    def _see_to_api(self) -> None:
        settings, seen = self._settings, serve.status()
        app = seen.applications.get(APP_NAME)
        if self._has_old_api or app is None or app.status not in GOES_ON_BY_ITSELF:
            serve.start(
                proxy_location="HeadOnly", http_options={"host": settings.host, "port": settings.port}
            )
            serve.run(
                bind(settings, ACTOR_NAME, namespace(settings.cluster)), name=APP_NAME, route_prefix="/"
            )
            self._has_old_api = False
            seen = serve.status()
        where = f"http://{settings.host}:{settings.port}"
        if not any(proxy is ProxyStatus.HEALTHY for proxy in seen.proxies.values()):
            states = ", ".join(proxy.value for proxy in seen.proxies.values()) or "none"
            raise RuntimeError(f"nothing listens at {where} yet (proxies: {states}); is its port free?")
        if self._failures or app is None:
            log.info("the API is up on %s", where)


def _get(method: Any, within_s: float, *arguments: Any) -> Any:
    return ray.get(method.remote(*arguments), timeout=within_s)


def _named(error: Exception) -> tuple[str, str]:
    return type(error).__name__, str(error).strip().partition("\n")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True, help="Ray's GCS, host:port")
    parser.add_argument("--working-dir", type=Path, default=Path.cwd())
    parser.add_argument("--state-dir", help="so that the list of processes tells whose keeper it is")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = Settings()
    connect(arguments.address, settings)
    Driver(settings, arguments.working_dir).stay()


if __name__ == "__main__":
    main()
