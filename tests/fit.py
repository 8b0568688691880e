"""A child process with a small Ray cluster of its own, in which tests run loops under the real Ray Train.

Reads one request a line (JSON: name, storage, loop, config, num_ranks, max_failures, environment), runs two
at a time, and answers each with a line when it is done.  Ends, with its cluster, when its input does.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, Thread
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "PYTHONPATH": str(ROOT),
    # Nothing answers there.  Without it Ray Train's cleaner may ask another Ray on this host whether our run's
    # controller is alive, hears that it knows no such actor, and takes the run's placement group away.
    "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9",
}


class Fits:
    """The parent's side: `run` hands a job to the child and gives the answer to come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._waiting: dict[str, Future[dict[str, Any]]] = {}
        Thread(target=self._listen, daemon=True).start()

    def run(self, name: str, **request: Any) -> Future[dict[str, Any]]:
        self._waiting[name] = Future()
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"name": name, **request}) + "\n")
        self._process.stdin.flush()
        return self._waiting[name]

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith('{"fit"'):
                answer = json.loads(line)
                self._waiting.pop(answer["fit"]).set_result(answer)
        for future in self._waiting.values():
            future.set_exception(RuntimeError("the process with the Ray cluster ended"))


@contextmanager
def ray_train() -> Iterator[Fits]:
    command = [sys.executable, "-m", "tests.fit"]
    environment = os.environ | ENVIRONMENT
    environment.pop("RAY_ADDRESS", None)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdin=pipe, stdout=pipe) as process:
        yield Fits(process)
        assert process.stdin
        process.stdin.close()
        process.wait(timeout=60)


def main() -> None:
    import ray

    output = Lock()
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        _start(folder)
        with ThreadPoolExecutor(max_workers=2) as pool:
            for line in sys.stdin:
                pool.submit(answer, json.loads(line), output)
        ray.shutdown()


def _start(folder: str, tries: int = 3) -> None:
    """Ray gives a node 30 s to come up, and no setting changes that: on a busy machine another try is needed."""
    import ray

    for left in reversed(range(tries)):
        try:
            ray.init(
                address="local",
                num_cpus=4,
                include_dashboard=False,
                log_to_driver=False,
                _temp_dir=folder,
                logging_level="error",
            )
            return
        except Exception as error:
            ray.shutdown()
            if not left or "timed out during startup" not in str(error):
                raise


def answer(request: dict[str, Any], output: Lock) -> None:
    try:
        said = {"result": fit(request)}
    except Exception as error:  # noqa: BLE001  the parent gets to see it
        said = {"error": f"{type(error).__name__}: {error}"}
    with output:
        print(json.dumps({"fit": request["name"], **said}), flush=True)


def fit(request: dict[str, Any]) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    module, _, name = request["loop"].partition(":")
    trainer = TorchTrainer(
        getattr(importlib.import_module(module), name),
        train_loop_config=request["config"],
        scaling_config=ScalingConfig(num_workers=request["num_ranks"], resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name=request["name"],
            storage_path=request["storage"],
            failure_config=FailureConfig(
                max_failures=request.get("max_failures", 0), controller_failure_limit=0
            ),
            worker_runtime_env={"env_vars": request.get("environment", {})},
        ),
    )
    return trainer.fit().return_value


if __name__ == "__main__":
    main()
