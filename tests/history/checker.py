"""Was every promise kept?  Read from a history alone: nothing here knows the scheduler's code.

A history is a sequence of lines; each says what it `did`, and `at` which time (seconds since the epoch):

called   a client's call: `until`, `what` (submit, pause, ...), `job`, `outcome`: ok, fail or unknown (a timeout is
         no failure).  A submit has `name` and `saves_every` (steps), and `job` only when it is ok.  A call that is ok
         has `status`: the job's, in the answer.
saw      what an answer said: `until`, `job`, `status`, `attempt`
hurt     what was done to a process or a node: `what`, `victim`
joined   a node: `node`, `cpus`
lives    a rank's own word, several times a second: `job`, `attempt`, `rank`, `pid`, `node`
stepped  the same, after a training step: `step`
rested   a node, when every job had ended: `node`, `cpus`, `free`
ended    the last that was seen of a job: `job`, `name`, `status`, `reason` (code, message), `may_end` (statuses that its
         plan allows), `weights` and `undisturbed` (digests; only of a completed job)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Line = dict[str, Any]
TERMINAL = ("completed", "failed", "cancelled")
AT_REST = (*TERMINAL, "paused")
RESTARTS = ("resume", "restart", "force-start")
"""Calls that let an ended or paused job run again."""
CHECKPOINTS_LOST = 3
"""As many may be on their way to storage when a process is killed."""


def broken_promises(history: Sequence[Line]) -> list[str]:
    """In words; empty when all were kept."""
    return [words for rule in RULES for words in rule(history)]


def jobs_are_lost(history: Sequence[Line]) -> Iterator[str]:
    """What was acknowledged must come to an end."""
    ended = {line["job"] for line in _did(history, "ended")}
    for call in _calls(history, "submit", "ok"):
        if call["job"] not in ended:
            yield f"{call['name']} was accepted as job {call['job']} and never ended"


def jobs_come_from_nowhere(history: Sequence[Line]) -> Iterator[str]:
    """A submit without an answer may have made a job; nothing else may."""
    submits = _calls(history, "submit", "ok", "unknown")
    known, names = {call.get("job") for call in submits}, {call["name"] for call in submits}
    for line in _did(history, "ended"):
        if line["job"] not in known and line["name"] not in names:
            yield f"job {line['job']} ended, and nobody submitted it"
    submitted = known | {line["job"] for line in _did(history, "ended")}
    for job in sorted({line["job"] for line in _did(history, "lives", "stepped")} - submitted):
        yield f"job {job} ran, and nobody submitted it"


def a_submit_makes_two_jobs(history: Sequence[Line]) -> Iterator[str]:
    made: dict[str, set[str]] = defaultdict(set)
    for line in [*_calls(history, "submit", "ok"), *_did(history, "ended")]:
        made[line["name"]].add(line["job"])
    for name, jobs in made.items():
        if len(jobs) > 1:
            yield f"{name} was submitted once, and became the jobs {sorted(jobs)}"


def an_end_has_no_stated_reason(history: Sequence[Line]) -> Iterator[str]:
    for line in _did(history, "ended"):
        reason = line.get("reason") or {}
        if line["status"] not in TERMINAL:
            yield f"{line['name']} is still {line['status']}: {reason}"
        elif not (reason.get("code") and reason.get("message")):
            yield f"{line['name']} is {line['status']}, and does not say why"


def an_end_was_not_to_be(history: Sequence[Line]) -> Iterator[str]:
    """Only who was asked to is cancelled, only what the plan breaks fails."""
    for line in _did(history, "ended"):
        if line["status"] in TERMINAL and line["status"] not in line["may_end"]:
            yield (
                f"{line['name']} is {line['status']} and could only be {' or '.join(line['may_end'])}: {line['reason']}"
            )


def a_call_is_forgotten(history: Sequence[Line]) -> Iterator[str]:
    """An acknowledged cancel or pause of a running job happens, unless the job ended first."""
    for call in [*_calls(history, "cancel", "ok"), *_calls(history, "pause", "ok")]:
        if call["status"] != "running":
            continue  # what the answer said is already the whole effect
        wanted = {"cancel": "cancelled", "pause": "paused"}[call["what"]]
        later = [line for line in _of(history, call["job"], "saw", "ended") if line["at"] >= call["at"]]
        if not any(line["status"] in (wanted, *TERMINAL) for line in later):
            yield f"the {call['what']} of job {call['job']} was acknowledged, and it was never {wanted}"


def runs_overlap(history: Sequence[Line]) -> Iterator[str]:
    """A process of one attempt lives after a process of a later attempt began."""
    for job, runs in _runs(history).items():
        for earlier, later in pairwise(sorted(runs, key=lambda run: run.attempt)):
            if earlier.until >= later.since:
                yield (
                    f"job {job}: attempt {earlier.attempt} lived {earlier.until - later.since:.2f} s into attempt "
                    f"{later.attempt}"
                )


def a_rank_is_there_twice(history: Sequence[Line]) -> Iterator[str]:
    processes: dict[tuple[str, int, int], set[int]] = defaultdict(set)
    for line in _did(history, "lives", "stepped"):
        processes[line["job"], line["attempt"], line["rank"]].add(line["pid"])
    for (job, attempt, rank), pids in processes.items():
        if len(pids) > 1:
            yield f"job {job}: rank {rank} of attempt {attempt} was in the processes {sorted(pids)}"


def something_lives_after_the_end(history: Sequence[Line]) -> Iterator[str]:
    """Completed, failed, cancelled and paused mean gone, until somebody asks for another run."""
    for job, runs in _runs(history).items():
        again = [
            call["at"]
            for call in _of(history, job, "called")
            if call["what"] in RESTARTS and _may_count(call)
        ]
        for line in _of(history, job, "saw", "ended"):
            if line["status"] not in AT_REST:
                continue
            told_at = line.get("until", line["at"])
            for run in runs:
                if run.until > told_at and not any(line["at"] <= at < run.until for at in again):
                    yield (
                        f"job {job} was {line['status']}, and attempt {run.attempt} lived {run.until - told_at:.2f} s "
                        "longer"
                    )


def steps_are_skipped(history: Sequence[Line]) -> Iterator[str]:
    """Within an attempt a rank takes one step after the other, and an attempt begins where an earlier one was."""
    for job, runs in _runs(history).items():
        reached = 0
        for run in sorted(runs, key=lambda run: run.attempt):
            for rank, steps in run.steps.items():
                if any(after != before + 1 for before, after in pairwise(steps)):
                    yield f"job {job}: rank {rank} of attempt {run.attempt} took the steps {_short(steps)}"
                if steps[0] > reached + 1:
                    yield f"job {job}: attempt {run.attempt} began with step {steps[0]}, after step {reached}"
            reached = max([reached, *(steps[-1] for steps in run.steps.values())])


def too_much_is_done_again(history: Sequence[Line]) -> Iterator[str]:
    """An attempt goes on from a checkpoint near the end of the one before; a few may still be on their way."""
    saves_every = {call["job"]: call["saves_every"] for call in _calls(history, "submit", "ok")}
    for job, runs in _runs(history).items():
        began = [run for run in sorted(runs, key=lambda run: run.attempt) if run.steps]
        for before, after in pairwise(began):
            again = before.last_step - after.first_step + 1
            if job in saves_every and again > CHECKPOINTS_LOST * saves_every[job]:
                yield (
                    f"job {job}: attempt {before.attempt} reached step {before.last_step}, attempt {after.attempt} "
                    f"began with step {after.first_step}, and a checkpoint is saved every {saves_every[job]} steps"
                )


def a_polite_stop_loses_steps(history: Sequence[Line]) -> Iterator[str]:
    """A job that was seen paused, and not hurt in that attempt, goes on with the very next step."""
    hurt = [line["at"] for line in _did(history, "hurt")]
    for job, runs in _runs(history).items():
        by_attempt = {run.attempt: run for run in runs}
        for line in _of(history, job, "saw"):
            paused, following = by_attempt.get(line["attempt"]), by_attempt.get(line["attempt"] + 1)
            if line["status"] != "paused" or not (paused and following and paused.steps and following.steps):
                continue
            if any(paused.since <= at <= line["at"] for at in hurt):
                continue
            last, first = paused.last_step, following.first_step
            if first != last + 1:
                yield f"job {job} was paused after step {last} and went on with step {first}"


def a_status_goes_back(history: Sequence[Line]) -> Iterator[str]:
    """An attempt's number never falls; an end stays, unless somebody asks for another run."""
    for job in sorted({line["job"] for line in _did(history, "saw")}):
        lines = _of(history, job, "saw", "called")
        for before, after in pairwise(line for line in lines if line["did"] == "saw"):
            if after["attempt"] < before["attempt"]:
                yield f"job {job} was in attempt {before['attempt']}, and then in {after['attempt']}"
            asked = any(
                line["did"] == "called"
                and line["what"] in RESTARTS
                and _may_count(line)
                and before["at"] <= line["at"] <= after["until"]
                for line in lines
            )
            if before["status"] in TERMINAL and after["status"] != before["status"] and not asked:
                yield f"job {job} was {before['status']}, and then {after['status']}"


def a_node_is_oversubscribed(history: Sequence[Line]) -> Iterator[str]:
    """At no moment more ranks live on a node than it has CPUs; each rank here takes one."""
    cpus = {line["node"]: line["cpus"] for line in _did(history, "joined")}
    lives: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for line in _did(history, "lives", "stepped"):
        lives[line["node"], line["job"], line["attempt"], line["rank"], line["pid"]].append(line["at"])
    changes: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for (node, *_), moments in lives.items():
        changes[node] += [(min(moments), 1), (max(moments), -1)]
    for node, moves in changes.items():
        now = most = 0
        for _, change in sorted(moves):
            now += change
            most = max(most, now)
        if node not in cpus:
            yield f"{most} ranks lived on node {node}, which nobody started"
        elif most > cpus[node]:
            yield f"{most} ranks lived at once on node {node}, which has {cpus[node]} CPUs"


def something_is_held_by_nobody(history: Sequence[Line]) -> Iterator[str]:
    """When every job has ended, everything is free again."""
    for line in _did(history, "rested"):
        if line["free"] != line["cpus"]:
            yield f"every job had ended, and {line['free']} of {line['cpus']} CPUs of node {line['node']} were free"


def weights_differ(history: Sequence[Line]) -> Iterator[str]:
    """A completed job has, bit for bit, the weights of a run that nobody disturbed."""
    for line in _did(history, "ended"):
        if line["status"] != "completed":
            continue
        if not line.get("weights"):
            yield f"{line['name']} is completed and has no weights"
        elif line["weights"] != line["undisturbed"]:
            yield f"{line['name']} has other weights than a run that nobody disturbed"


RULES: tuple[Callable[[Sequence[Line]], Iterator[str]], ...] = (
    jobs_are_lost,
    jobs_come_from_nowhere,
    a_submit_makes_two_jobs,
    an_end_has_no_stated_reason,
    an_end_was_not_to_be,
    a_call_is_forgotten,
    runs_overlap,
    a_rank_is_there_twice,
    something_lives_after_the_end,
    steps_are_skipped,
    too_much_is_done_again,
    a_polite_stop_loses_steps,
    a_status_goes_back,
    a_node_is_oversubscribed,
    something_is_held_by_nobody,
    weights_differ,
)


@dataclass(frozen=True, slots=True)
class _Run:
    """One attempt, as its processes tell it."""

    attempt: int
    since: float
    until: float
    steps: dict[int, list[int]]
    """Rank -> its steps, in the order in which it took them."""

    @property
    def first_step(self) -> int:
        return min(steps[0] for steps in self.steps.values())

    @property
    def last_step(self) -> int:
        return max(steps[-1] for steps in self.steps.values())


def _runs(history: Iterable[Line]) -> dict[str, list[_Run]]:
    """Job -> its attempts."""
    lines: dict[str, dict[int, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in _did(history, "lives", "stepped"):
        lines[line["job"]][line["attempt"]].append(line)
    return {job: [_run(attempt, said) for attempt, said in runs.items()] for job, runs in lines.items()}


def _run(attempt: int, lines: Sequence[Line]) -> _Run:
    steps: dict[int, list[int]] = defaultdict(list)
    for line in sorted(lines, key=lambda line: line["at"]):
        if line["did"] == "stepped":
            steps[line["rank"]].append(line["step"])
    moments = [line["at"] for line in lines]
    return _Run(attempt, min(moments), max(moments), dict(steps))


def _did(history: Iterable[Line], *what: str) -> list[Line]:
    return [line for line in history if line["did"] in what]


def _of(history: Iterable[Line], job: str, *did: str) -> list[Line]:
    """In the order of time."""
    return sorted(
        (line for line in _did(history, *did) if line.get("job") == job), key=lambda line: line["at"]
    )


def _calls(history: Iterable[Line], what: str, *outcomes: str) -> list[Line]:
    return [call for call in _did(history, "called") if call["what"] == what and call["outcome"] in outcomes]


def _may_count(call: Line) -> bool:
    return call["outcome"] != "fail"


def _short(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps[:20])) + (", ..." if len(steps) > 20 else "")
