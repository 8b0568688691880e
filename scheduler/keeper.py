"""The process that `scheduler up` leaves behind: it brings up the actor and the API, and stays.

It must stay: Ray ends the prepared processes of a driver that has gone.  If it dies, jobs, the registry and the
API go on; only the starts get cold.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import ray
from ray import serve
from ray.exceptions import RayError

from scheduler.actor import ACTOR_NAME, RUN_ENVIRONMENT, SchedulerActor, default_roots, namespace
from scheduler.settings import Settings
from scheduler.warm_up import prepare_cluster
from serve_app.deployment import bind

EVERY_S = 10.0
CONNECT_WITHIN_S = 60.0
HEAD = {"node:__internal_head__": 0.001}
log = logging.getLogger("scheduler.keeper")


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
            log.info("Ray at %s is not ready yet: %s", address, error)
            time.sleep(1.0)


def bring_up(settings: Settings, working_dir: Path) -> None:
    """The actor first, then the API.  Safe to repeat: what is there is kept."""
    actor = (
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
        .remote(settings, default_roots(settings, working_dir))
    )
    incarnation = ray.get(actor.ready.remote())
    log.info("the registry is up, incarnation %s", incarnation)
    ray.remote(prepare_cluster).options(
        num_cpus=0, resources=HEAD, runtime_env={"env_vars": RUN_ENVIRONMENT}
    ).remote()
    serve.start(proxy_location="HeadOnly", http_options={"host": settings.host, "port": settings.port})
    serve.run(bind(settings, ACTOR_NAME, namespace(settings.cluster)), name="scheduler", route_prefix="/")
    log.info("the API is up on http://%s:%s", settings.host, settings.port)


def stay(settings: Settings) -> None:
    """Tell the actor, as long as this process lives, that preparing processes is worth while."""
    while True:
        try:
            actor = ray.get_actor(ACTOR_NAME, namespace(settings.cluster))
            ray.get(actor.keep_warm.remote(3 * EVERY_S), timeout=EVERY_S)
        except (ValueError, RayError) as error:
            log.warning("the scheduler actor does not answer: %s", error)
        time.sleep(EVERY_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True, help="Ray's GCS, host:port")
    parser.add_argument("--working-dir", type=Path, default=Path.cwd())
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = Settings()
    connect(arguments.address, settings)
    bring_up(settings, arguments.working_dir)
    stay(settings)


if __name__ == "__main__":
    main()
