"""Lives through planned jobs: over HTTP as a user does, with real signals as an unlucky machine does."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import httpx
import psutil
import torch

from tests.conftest import Cluster
from tests.history.checker import AT_REST, TERMINAL, Line
from tests.history.recording import History
from tests.nodes import Nodes, WorkerNode
from tests.witness import digest, undisturbed

LOOK_EVERY_S = 0.2
ANSWERED_WITHIN_S = 60.0
FROZEN_S = 3.0
RESTS_WITHIN_S = 15.0


@dataclass(frozen=True)
class Trouble:
    """What happens to a job once one of its ranks has taken step *at_step*."""

    what: str
    at_step: int


@dataclass(frozen=True)
class PlannedJob:
    name: str
    loop: str
    num_ranks: int
    config: dict[str, Any]
    """Of the loop."""
    troubles: tuple[Trouble, ...] = ()
    raise_at: int | None = None
    may_end: tuple[str, ...] = ("completed",)


class GaveUp(Exception):
    """Nobody came to rest, or answered, in time.  The history says what was seen last."""


class TooLate(Exception):
    """What was to be hurt is not there any more."""


class Driver:
    """Brings each job through what is planned for it, and writes down all that was done and seen."""

    def __init__(
        self, cluster: Cluster, nodes: Nodes, history: History, *, seed: int, patience_s: float
    ) -> None:
        """*patience_s*: how long a job may take from one thing to the next."""
        self._cluster, self._nodes, self._history = cluster, nodes, history
        self._random, self._patience_s = random.Random(seed), patience_s
        self._http = httpx.Client(base_url=cluster.info.api_url, timeout=20.0)
        self._nodes_change = Lock()
        for node in nodes.here:
            self._write_joined(node)

    def live_through(self, jobs: tuple[PlannedJob, ...], at_once: int) -> None:
        """Each job from its submit to its end, *at_once* of them at a time, in their order."""
        with ThreadPoolExecutor(at_once) as lanes:
            list(lanes.map(self._one, jobs))
        self._write_rest()

    def _one(self, job: PlannedJob) -> None:
        try:
            job_id = self._submit(job)
        except GaveUp:
            return  # the history has a submit without an answer
        with contextlib.suppress(GaveUp):
            for trouble in job.troubles:
                if not self._reaches(job_id, trouble.at_step):
                    break
                try:
                    TROUBLES[trouble.what](self, job_id)
                except TooLate as late:
                    self._history.write("missed", job=job_id, what=trouble.what, why=str(late))
            self._wait_for(job_id, TERMINAL)
        self._write_end(job, job_id)

    def _submit(self, job: PlannedJob) -> str:
        spec = {
            "loop": "tests.witness:witnessed",
            "name": job.name,
            "config": {
                "loop": job.loop,
                "config": job.config,
                "trace": str(self._history.trace),
                "raise_at": job.raise_at,
            },
            "resources": {"num_ranks": job.num_ranks},
        }
        answer = self._call(
            "submit",
            "",
            json=spec,
            headers={"Idempotency-Key": job.name},
            name=job.name,
            saves_every=job.config["checkpoint_every_steps"],
        )
        return answer["job_id"]

    def _call(
        self,
        what: str,
        path: str,
        *,
        json: Any = None,
        headers: dict[str, str] | None = None,
        job: str | None = None,
        **more: Any,
    ) -> Line:
        """POST until there is an answer to go by.  Each try is in the history; so is how it came out."""
        until_s = time.monotonic() + ANSWERED_WITHIN_S
        while time.monotonic() < until_s:
            at, answer = time.time(), self._try("POST", f"/api/training{path}", json=json, headers=headers)
            outcome = _outcome(answer)
            said = answer.json() if answer is not None and outcome != "unknown" else {}
            told = {"job": said.get("job_id", job), "status": said.get("status")} if outcome == "ok" else {}
            refusal = {"said": said.get("detail")} if outcome == "fail" else {}
            self._history.write(
                "called",
                at,
                until=time.time(),
                what=what,
                outcome=outcome,
                **({"job": job} | told | refusal | more),
            )
            if outcome != "unknown":
                return said
            time.sleep(0.5)
        raise GaveUp(what)

    def _try(self, method: str, path: str, **request: Any) -> httpx.Response | None:
        try:
            return self._http.request(method, path, **request)
        except httpx.TransportError:
            return None

    def look(self, job_id: str) -> Line | None:
        """How the job stands; None while nobody answers."""
        at, answer = time.time(), self._try("GET", f"/api/training/status/{job_id}")
        if answer is None or not answer.is_success or not answer.json()["verified"]:
            return None
        job = answer.json()
        self._history.write(
            "saw", at, until=time.time(), job=job_id, status=job["status"], attempt=job["attempt"]
        )
        return job

    def _wait_for(self, job_id: str, statuses: tuple[str, ...]) -> Line:
        until_s = time.monotonic() + self._patience_s
        while time.monotonic() < until_s:
            job = self.look(job_id)
            if job and job["status"] in statuses:
                return job
            time.sleep(LOOK_EVERY_S)
        raise GaveUp(f"{job_id} is not {statuses}")

    def _reaches(self, job_id: str, step: int) -> bool:
        """Wait until a rank has taken *step* and lives; False when the job ends before."""
        until_s = time.monotonic() + self._patience_s
        while time.monotonic() < until_s:
            newest = self._newest(job_id)
            if any(line.get("step", 0) >= step for line in newest) and _lives(newest):
                return True
            if (job := self.look(job_id)) and job["status"] in TERMINAL:
                return False
            time.sleep(LOOK_EVERY_S)
        raise GaveUp(f"{job_id} does not reach step {step}")

    def _newest(self, job_id: str) -> list[Line]:
        """What the ranks of the newest attempt have said."""
        told = self._history.told_by(job_id)
        newest = max((line["attempt"] for line in told), default=0)
        return [line for line in told if line["attempt"] == newest]

    def _write_end(self, job: PlannedJob, job_id: str) -> None:
        at = time.time()
        seen = self.look(job_id) or {"status": "not to be seen", "reason": None}
        weights = {}
        if seen["status"] == "completed":
            weights = {
                "weights": _weights(seen["result"]["output_dir"]),
                "undisturbed": digest(undisturbed(job.loop, job.config, job.num_ranks)),
            }
        reason = seen["reason"] and {key: seen["reason"][key] for key in ("code", "message")}
        told = {"job": job_id, "name": job.name, "status": seen["status"], "reason": reason}
        self._history.write("ended", at, until=time.time(), may_end=job.may_end, **told, **weights)

    def _write_rest(self) -> None:
        """What each node has free at last; Ray takes a moment to say so."""
        until_s = time.monotonic() + RESTS_WITHIN_S
        nodes: list[Line] = []
        while time.monotonic() < until_s and not (nodes and all(map(_is_free, nodes))):
            time.sleep(LOOK_EVERY_S)
            nodes = self._seen_nodes()
        for node in nodes:
            self._history.write("rested", node=node["node_id"], cpus=node["cpus"], free=node["free_cpus"])

    def _seen_nodes(self) -> list[Line]:
        answer = self._try("GET", "/health")
        return answer.json()["nodes"] if answer is not None and answer.is_success else []

    # The troubles.  What is hurt is written down before, so that the history never lacks it.

    def pause(self, job_id: str) -> None:
        """And resume, once it has come to rest."""
        answer = self._post(job_id, "pause")
        if answer.get("status") == "running" and self._wait_for(job_id, AT_REST)["status"] in TERMINAL:
            return
        self._post(job_id, "resume")

    def preempt(self, job_id: str) -> None:
        self._post(job_id, "preempt")

    def cancel(self, job_id: str) -> None:
        self._post(job_id, "cancel")

    def kill_rank(self, job_id: str) -> None:
        self._signal("kill_rank", self._a_rank(job_id)["pid"], signal.SIGKILL)

    def freeze_rank(self, job_id: str) -> None:
        pid = self._a_rank(job_id)["pid"]
        self._signal("freeze_rank", pid, signal.SIGSTOP)
        time.sleep(FROZEN_S)  # as long as it is to last
        self._signal("thaw_rank", pid, signal.SIGCONT)

    def kill_run_actor(self, job_id: str) -> None:
        self._signal("kill_run_actor", self._run_actor_pid(job_id), signal.SIGKILL)

    def kill_synchronizer(self, job_id: str) -> None:
        """Ray Train's: the ranks meet there; it was started by the run's actor, on its node."""
        run_actor = psutil.Process(self._run_actor_pid(job_id))
        siblings = [process for node in self._nodes.here for process in node.processes()]
        if run_actor.pid not in {process.pid for process in siblings}:
            raise TooLate(f"the run's actor, {run_actor.pid}, is gone")
        began_s = {one.pid: one.create_time() for one in siblings if _is_synchronizer(one)}
        later = {pid: at for pid, at in began_s.items() if at > run_actor.create_time()}
        if not later:
            raise TooLate("there is no synchronizer")
        self._signal("kill_synchronizer", min(later, key=lambda pid: later[pid]), signal.SIGKILL)

    def kill_scheduler(self, job_id: str) -> None:
        answer = self._try("GET", "/health")
        if pid := (answer.json().get("registry") or {}).get("pid") if answer is not None else None:
            self._signal("kill_scheduler", pid, signal.SIGKILL)

    def kill_node(self, job_id: str) -> None:
        """Of one of its ranks; another one as big joins."""
        with self._nodes_change:
            victims = {line["node"] for line in self._newest(job_id)} & {node.id for node in self._nodes.here}
            if not victims:
                raise TooLate("its nodes are gone")
            node = self._nodes.of(self._random.choice(sorted(victims)))
            self._history.write("hurt", what="kill_node", victim=node.id)
            self._nodes.kill(node)
            self._write_joined(self._nodes.add(NODE_CPUS))

    def _post(self, job_id: str, what: str) -> Line:
        return self._call(what, f"/{job_id}/{what}", job=job_id)

    def _signal(self, what: str, pid: int, number: signal.Signals) -> None:
        self._history.write("hurt", what=what, victim=pid)
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            os.kill(pid, number)

    def _a_rank(self, job_id: str) -> Line:
        pids = {line["pid"]: line for line in self._newest(job_id)}
        return pids[self._random.choice(sorted(pids))]

    def _run_actor_pid(self, job_id: str) -> int:
        attempt = self._newest(job_id)[0]["attempt"]
        started = self._cluster.folder(job_id, attempt).path / "started.json"
        return json.loads(started.read_text())["pid"]

    def _write_joined(self, node: WorkerNode) -> None:
        self._history.write("joined", node=node.id, cpus=NODE_CPUS)


NODE_CPUS = 2
TROUBLES: dict[str, Callable[[Driver, str], None]] = {
    "pause": Driver.pause,
    "preempt": Driver.preempt,
    "cancel": Driver.cancel,
    "kill_rank": Driver.kill_rank,
    "freeze_rank": Driver.freeze_rank,
    "kill_run_actor": Driver.kill_run_actor,
    "kill_synchronizer": Driver.kill_synchronizer,
    "kill_scheduler": Driver.kill_scheduler,
    "kill_node": Driver.kill_node,
}


def _is_free(node: Line) -> bool:
    return node["free_cpus"] == node["cpus"]


def _outcome(answer: httpx.Response | None) -> str:
    """A server that broke down on the way may have done what it was asked."""
    if answer is None or answer.status_code >= 500:
        return "unknown"
    return "ok" if answer.is_success else "fail"


def _weights(output_dir: str) -> str | None:
    file = Path(output_dir, "model.pt")
    return digest(torch.load(file, weights_only=True)) if file.exists() else None


def _lives(lines: list[Line]) -> bool:
    return max(line["at"] for line in lines) > time.time() - 1.0


def _is_synchronizer(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()[:1] != [] and process.cmdline()[0].startswith("ray::SynchronizationActor")
    return False
