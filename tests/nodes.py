"""More nodes for a Ray head on this machine: each a raylet of its own, with its own address, ended by pid.

`ray.cluster_utils.Cluster` adds nodes only to a head that it started itself; here the head is the one of
`scheduler up`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

from scheduler.client import Client
from scheduler.server import local_cluster
from scheduler.settings import Settings
from tests.conftest import ROOT, Cluster, free_port, wait_until

QUICK_TO_SEE_LOSS = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "30000",
    "RAY_health_check_failure_threshold": "3",
}
"""For the head.  A node that is gone refuses at once, three times, within 2 s; one that is only slow, on a machine
with much to do, has half a minute to answer."""

PORTS = (
    "node-manager-port",
    "object-manager-port",
    "runtime-env-agent-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
)
TRIES = 3
UP_WITHIN_S = 150.0
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_raylet_start_wait_time_s": "120",
    "PYTHONPATH": str(ROOT),
}
OBJECT_STORE_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class WorkerNode:
    """One added node."""

    name: str
    id: str
    """Ray's id of it, in hexadecimal: what an allocation names."""
    process: subprocess.Popen[bytes]
    folder: Path

    def processes(self) -> list[psutil.Process]:
        """All of it that lives: the raylet, its agents, and the workers, which are the raylet's children."""
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        return []

    def pids(self) -> set[int]:
        return {process.pid for process in self.processes()}


@dataclass
class Nodes:
    """The nodes beside the head.  A context manager: what is left at the end is ended."""

    ray_address: str
    here: list[WorkerNode] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def add(self, num_cpus: int, labels: Mapping[str, str] | None = None) -> WorkerNode:
        """Start a node and return when Ray counts it among the living.

        Ray gives a new node 30 s to sign in, and no setting changes that: on a busy machine another try is needed.
        """
        for left in reversed(range(TRIES)):
            try:
                return self._add(num_cpus, labels)
            except AssertionError as error:
                if not left or "timed out during startup" not in str(error):
                    raise
        raise AssertionError("there is at least one try")

    def _add(self, num_cpus: int, labels: Mapping[str, str] | None) -> WorkerNode:
        number = next(self._numbers)
        name, folder = f"node-{number}", Path(tempfile.mkdtemp(prefix="rn-"))  # short: Ray puts sockets there
        command = _command(self.ray_address, name, f"127.0.0.{number + 1}", folder, num_cpus, labels or {})
        environment = os.environ | ENVIRONMENT
        with (folder / "ray-start.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env=environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        def joined() -> str | None:
            assert process.poll() is None, f"{name} ended: {(folder / 'ray-start.log').read_text()[-2000:]}"
            return self._alive().get(name)

        try:
            node_id = wait_until(joined, within_s=UP_WITHIN_S, what=f"{name} joins {self.ray_address}") or ""
        except BaseException:
            _kill(WorkerNode(name, "", process, folder))
            raise
        node = WorkerNode(name, node_id, process, folder)
        self.here.append(node)
        return node

    def kill(self, node: WorkerNode) -> None:
        """As if its power went: every process of it at once, without a word to Ray.  Returns when they are gone."""
        _kill(node)
        self.here.remove(node)

    def drain(self, node: WorkerNode, deadline_s: float, why: str = "spot instance is taken back") -> None:
        """Tell Ray that the node will go in *deadline_s*, as a cloud does.  It goes only when `kill` is called."""
        from ray.core.generated import autoscaler_pb2

        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline_ms = int((time.time() + deadline_s) * 1000)
        accepted, refusal = self._gcs().drain_node(node.id, reason, why, deadline_ms)
        assert accepted, f"Ray does not drain {node.name}: {refusal}"

    def remove(self, node: WorkerNode, within_s: float = 10.0) -> None:
        """Let the node leave in peace: it says goodbye to Ray first."""
        node.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            node.process.wait(within_s)
        self.kill(node)

    def of(self, node_id: str) -> WorkerNode:
        return next(node for node in self.here if node.id == node_id)

    def is_known(self, node: WorkerNode) -> bool:
        """Whether Ray counts it among the living."""
        return node.name in self._alive()

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        for node in list(self.here):
            self.kill(node)

    def _alive(self) -> dict[str, str]:
        """Name -> id."""
        infos = self._gcs().get_all_node_info(timeout=10)
        return {info.node_name: node_id.hex() for node_id, info in infos.items() if info.state == 0}

    def _gcs(self) -> Any:
        """As `ray drain-node` asks: without joining the cluster as a driver."""
        from ray._raylet import GcsClient

        return GcsClient(address=self.ray_address)


@contextmanager
def cluster_with_nodes(name: str, cpus: Sequence[int], **changes: Any) -> Iterator[tuple[Cluster, Nodes]]:
    """A scheduler on a head without CPUs of its own, and a node for each of *cpus*; all gone afterwards.

    *changes*: settings other than those of a test cluster.
    """
    folder = Path(tempfile.mkdtemp(prefix="sched-"))
    settings = Settings(
        **{
            "state_dir": folder / "state",
            "storage_path": folder / "storage",
            "cluster": name,
            "port": free_port(),
            "allowed_loops": ("tests.witness:*",),
            "warm_runs": 0,
            "set_aside_share": 0.0,
            "retry_backoff_s": 0.2,
            "liveness_every_s": 2.0,
            **changes,
        }
    )
    os.chdir(ROOT)
    try:
        with patch.dict(os.environ, QUICK_TO_SEE_LOSS):
            info = local_cluster.up(settings, num_cpus=0)
        with Nodes(info.ray_address) as nodes:
            for num_cpus in cpus:
                nodes.add(num_cpus)
            cluster = Cluster(Client(url=info.api_url), settings, info)
            wait_until_seen(cluster, nodes)
            yield cluster, nodes
    finally:
        local_cluster.down(settings)
        shutil.rmtree(folder, ignore_errors=True)


def wait_until_seen(cluster: Cluster, nodes: Nodes) -> None:
    """Return when the scheduler knows exactly the nodes that there are."""
    wanted = {node.id for node in nodes.here}

    def known() -> bool:
        seen = {node.node_id for node in cluster.client.health().nodes if node.cpus}
        return seen == wanted

    wait_until(known, within_s=30, what="the scheduler sees every node, and no other")


def _command(
    address: str, name: str, ip: str, folder: Path, num_cpus: int, labels: Mapping[str, str]
) -> list[str]:
    options = {
        "address": address,
        "node-name": name,
        "node-ip-address": ip,
        "num-cpus": str(num_cpus),
        "object-store-memory": str(OBJECT_STORE_BYTES),
        "temp-dir": str(folder),
        "min-worker-port": "0",
        "max-worker-port": "0",
        **{name: str(free_port()) for name in PORTS},
    }
    if labels:
        options["labels"] = ",".join(f"{key}={value}" for key, value in labels.items())
    ray = str(Path(sys.executable).with_name("ray"))
    return [ray, "start", "--block", "--disable-usage-stats", *(f"--{k}={v}" for k, v in options.items())]


def _kill(node: WorkerNode) -> None:
    """First all are stopped, so that none hears the others die; then all are killed."""
    doomed = node.processes()
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in doomed:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
    node.process.wait(10)
    _, left = psutil.wait_procs(doomed, timeout=10)
    assert not left, f"{node.name}: {left} outlive a SIGKILL"
    shutil.rmtree(node.folder, ignore_errors=True)
