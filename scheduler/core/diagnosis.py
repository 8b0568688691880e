"""Why did a run not complete, and who is answerable?  Read from what it left behind, and from what Ray says of it.

A gang ends together, so one failure leaves many traces: the other ranks lose their connections and raise as well.
Such an echo never names the cause while something else does.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from scheduler.core.failure_kinds import KINDS, FailureKind
from scheduler.core.model import Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """An exception that left the loop on one rank."""

    rank: int
    type: str
    message: str
    traceback: str = ""
    module: str = ""
    """Where its class is from; a name alone does not say whose `Error` it is."""
    at_s: float = 0.0
    """Seconds since the epoch, by the clock of its node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Died:
    """A rank whose process went without raising."""

    rank: int
    said: str = ""
    """What Ray says of it: in 2.60 the same for SIGKILL, SIGSEGV and `os._exit`, with a list of guesses."""
    exit_code: int | None = None
    """As a shell has it: 128 + n, or -n, for signal n."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known when a run is over.  Everything may be missing."""

    raised: tuple[Raised, ...] = ()
    died: tuple[Died, ...] = ()
    nodes_lost: tuple[str, ...] = ()
    """Names of nodes that the gang held and that are gone."""
    nodes_drained: tuple[str, ...] = ()
    """Names of nodes that the gang held and that were told to empty themselves."""
    tails: Mapping[int, str] = field(default_factory=dict[int, str])
    """The last log lines of each rank."""
    kernel: str = ""
    """What the kernel's log says about the processes of the run, where it can be read."""
    controller: str = ""
    """What `fit()` raised, as `Type: text`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """`code` is for programs and never changes its spelling; `message` is a sentence and what to do next."""

    cause: Cause
    code: str
    message: str
    detail: str | None = None
    """What was seen: a traceback, or Ray's own words."""
    rank: int | None = None
    """The rank where it began, where one is known."""
    raised: Raised | None = None


# What a C++ library or the interpreter prints with its last breath.  Nothing that a program may survive.
_LAST_WORDS = re.compile(
    r"watchdog (thread terminated|caught collective)|taking the entire process down|terminate called"
    r"|what\(\):|Fatal Python error|\*\*\* SIG\w+ received|fallen off the bus|uncorrectable ECC",
    re.IGNORECASE,
)
_LAST_LINES = 60
_WITHOUT_A_WORD = "died without a word"
_CRASHES = frozenset({"SIGILL", "SIGABRT", "SIGBUS", "SIGFPE", "SIGSEGV"})
_NAMES = {each.value: each.name for each in signal.Signals}
_FATAL = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Floating": "SIGFPE",
    "Illegal instruction": "SIGILL",
}


def diagnose(evidence: Evidence) -> Diagnosis:
    """Name the root of what is seen.  Never raises, and always finds something to say.

    A lost node explains whatever its neighbours raised.  Then an exception that is no echo counts, the earliest
    first; then a drain, a process that died, echoes, and last what Ray Train itself complains about.
    """
    looks: tuple[Callable[[Evidence], Diagnosis | None], ...] = (
        _lost_node,
        _own_exception,
        _drain,
        _death,
        _echo,
        _controller,
    )
    evidence = _in_bounds(evidence)
    for look in looks:
        if found := look(evidence):
            return found
    return Diagnosis(
        cause=Cause.INFRASTRUCTURE,
        code="run_lost",
        message="the run is gone and left no trace; look at the logs of Ray on the nodes it had",
    )


MOST_CHARACTERS = 20_000
"""Of each text that is looked through: patterns take their time, and a loop may raise megabytes."""


def _in_bounds(evidence: Evidence) -> Evidence:
    return replace(
        evidence,
        raised=tuple(
            replace(one, message=_ends(one.message), traceback=_ends(one.traceback))
            for one in evidence.raised
        ),
        died=tuple(replace(one, said=_ends(one.said)) for one in evidence.died),
        tails={rank: _ends(text) for rank, text in evidence.tails.items()},
        kernel=_ends(evidence.kernel),
        controller=_ends(evidence.controller),
    )


def _ends(text: str) -> str:
    """The beginning and the end: both name an error, and what is between repeats itself."""
    half = MOST_CHARACTERS // 2
    return text if len(text) <= MOST_CHARACTERS else f"{text[:half]}\n...\n{text[-half:]}"


def signature(diagnosis: Diagnosis) -> str | None:
    """Equal when the same failure comes again; None where it says nothing about the run itself.

    What differs from run to run is left out: rank, numbers, addresses, paths, times.
    """
    if diagnosis.code in ("node_lost", "node_drained", "controller_died", "start_timeout", "run_lost"):
        return None
    if diagnosis.code == "killed":
        crash = next((name for name in _CRASHES if name in diagnosis.message), None)
        return f"killed {crash}" if crash else None
    error = diagnosis.raised
    if error is None or diagnosis.code not in ("loop_failed", "cuda_error", "data_missing", "exited"):
        return f"{diagnosis.code} {diagnosis.cause}"
    words = _without_what_varies(error.message.partition("\n")[0][:2_000])[:200]
    where = re.findall(r"^\s+File \"[^\"]*\", line \d+, in (\S+)", error.traceback, re.MULTILINE)
    return f"{diagnosis.code} {error.type} in {where[-1] if where else '?'}: {words}"


def _lost_node(evidence: Evidence) -> Diagnosis | None:
    said = [died.said for died in evidence.died] + [evidence.controller]
    told = next((text for text in said if "its node has died" in text or "NodeDiedError" in text), "")
    if not evidence.nodes_lost and not told:
        return None
    if set(evidence.nodes_lost) & set(evidence.nodes_drained) or "node was preempted" in told:
        return _drained(evidence, told)
    names = _listed(evidence.nodes_lost) or "a node of the run"
    return Diagnosis(
        cause=Cause.INFRASTRUCTURE,
        code="node_lost",
        message=f"{names} is gone, and the ranks on it; nothing is wrong with the job, look at the node",
        detail=told or None,
    )


def _drain(evidence: Evidence) -> Diagnosis | None:
    if evidence.nodes_drained or evidence.controller.startswith("PreemptionError"):
        return _drained(evidence, evidence.controller)
    return None


def _drained(evidence: Evidence, told: str) -> Diagnosis:
    names = _listed(evidence.nodes_drained) or _listed(evidence.nodes_lost) or "a node of the run"
    return Diagnosis(
        cause=Cause.PREEMPTION,
        code="node_drained",
        message=f"{names} was taken away by whoever runs the cluster; nothing is wrong with the job",
        detail=told or None,
    )


def _own_exception(evidence: Evidence) -> Diagnosis | None:
    in_time = sorted(evidence.raised, key=lambda error: error.at_s)
    return next((_of_exception(error) for error in in_time if not _is_echo(error)), None)


def _echo(evidence: Evidence) -> Diagnosis | None:
    return _of_exception(min(evidence.raised, key=lambda error: error.at_s)) if evidence.raised else None


def _is_echo(error: Raised) -> bool:
    kind = _kind_of_exception(error)
    return kind is not None and kind.is_echo


def _of_exception(error: Raised) -> Diagnosis:
    words = _short(error.message) or "no message"
    if kind := _kind_of_exception(error):
        cause, code = kind.cause, kind.code
        message = f"rank {error.rank} {kind.what} ({error.type}: {words}); {kind.advice}"
    else:
        cause, code = Cause.USER, "loop_failed"
        message = f"rank {error.rank} raised {_full_name(error)}: {words}"
    return Diagnosis(
        cause=cause,
        code=code,
        message=message,
        detail=error.traceback or None,
        rank=error.rank,
        raised=error,
    )


def _full_name(error: Raised) -> str:
    return error.type if error.module in ("", "builtins", "__main__") else f"{error.module}.{error.type}"


def _kind_of_exception(error: Raised) -> FailureKind | None:
    """What it says itself; else, or if that is an echo, what it was raised from."""
    own = _first_kind(f"{error.type}: {error.message}")
    if own and not own.is_echo:
        return own
    return _first_kind("\n".join(_headlines(error.traceback)), handled=True) or own


def _headlines(traceback: str) -> list[str]:
    """The exceptions that a traceback names, without the source lines that may quote one."""
    return [line for line in traceback.splitlines() if line and not line[0].isspace()]


def _first_kind(text: str, *, handled: bool = False) -> FailureKind | None:
    return next((k for k in KINDS if not (handled and k.only_own) and k.pattern.search(text)), None)


def _death(evidence: Evidence) -> Diagnosis | None:
    found = [_of_death(died, evidence) for died in evidence.died]
    return min(found, key=_vagueness, default=None)


def _vagueness(diagnosis: Diagnosis) -> int:
    """Of several ranks that died, the one that tells most is the root; who merely lost its peers comes late."""
    order = ("out_of_memory", "out_of_gpu_memory", "cuda_error", "disk_full", "exited", "killed", "nccl")
    is_known = diagnosis.code in order and _WITHOUT_A_WORD not in diagnosis.message
    return order.index(diagnosis.code) if is_known else len(order)


def _of_death(died: Died, evidence: Evidence) -> Diagnosis:
    said = died.said
    last_words = _last_words(evidence.tails.get(died.rank, ""))
    for told in (said, evidence.kernel, last_words):
        if kind := _first_kind(told):
            what = f"{kind.what} ({_line_of(kind, told)}); {kind.advice}"
            return _of_rank(died, kind.cause, kind.code, what)
    if "health check has been hanging" in said:
        what = "did not answer Ray Train for many minutes; look at the load and the network of its node"
        return _of_rank(died, Cause.INFRASTRUCTURE, "run_lost", what)
    if "ray.kill" in said:
        return _of_rank(
            died, Cause.INFRASTRUCTURE, "killed", "was ended by ray.kill from outside the scheduler"
        )
    name = _signal(died, last_words)
    if name in _CRASHES:
        what = f"crashed ({name}) in native code; the end of its log may name the library"
        return _of_rank(died, Cause.INFRASTRUCTURE, "killed", what)
    if name:
        what = f"was killed ({name}) from outside, or by the kernel for want of memory; see its node's kernel log"
        return _of_rank(died, Cause.INFRASTRUCTURE, "killed", what)
    code = _exit_code(died, said)
    if code is not None:
        what = f"ended its process with exit code {code} instead of returning; look for sys.exit or os._exit"
        return _of_rank(died, Cause.USER, "exited", what)
    what = f"{_WITHOUT_A_WORD}: killed, crashed, or ended by os._exit; see the end of its log"
    return _of_rank(died, Cause.INFRASTRUCTURE, "killed", what)


def _of_rank(died: Died, cause: Cause, code: str, what: str) -> Diagnosis:
    return Diagnosis(
        cause=cause, code=code, message=f"rank {died.rank} {what}", detail=died.said or None, rank=died.rank
    )


def _last_words(tail: str) -> str:
    return "\n".join(line for line in tail.splitlines()[-_LAST_LINES:] if _LAST_WORDS.search(line))


def _signal(died: Died, last_words: str) -> str | None:
    code = died.exit_code
    number = 0 if code is None else -code if code < 0 else code - 128
    if number in _NAMES:
        return _NAMES[number]
    if found := re.search(r"\*\*\* (SIG\w+) received", last_words):
        return found[1]
    return next(
        (name for words, name in _FATAL.items() if f"Fatal Python error: {words}" in last_words), None
    )


def _exit_code(died: Died, said: str) -> int | None:
    if died.exit_code is not None:
        return died.exit_code
    found = re.search(r"exits with an exit code (-?\d+)", said)
    return int(found[1]) if found else None


def _controller(evidence: Evidence) -> Diagnosis | None:
    said = evidence.controller.strip()
    if not said:
        return None
    if kind := _first_kind(said):
        what = f"the run {kind.what} ({_line_of(kind, said)}); {kind.advice}"
        return Diagnosis(cause=kind.cause, code=kind.code, message=what, detail=evidence.controller)
    if re.search(r"startup timed out|StartupTimeout|InsufficientClusterResources", said):
        code = "start_timeout"
        message = (
            "Ray Train did not get all ranks in time, though the nodes had room; "
            "look for other work on them, or for a node that starts processes slowly"
        )
    elif said.startswith(("ActorDiedError", "RayActorError", "OwnerDiedError")):
        code, message = "controller_died", "Ray Train's controller died; look at the node where rank 0 was"
    else:
        code, message = "run_lost", f"Ray Train could not run it: {_short(said)}"
    return Diagnosis(cause=Cause.INFRASTRUCTURE, code=code, message=message, detail=evidence.controller)


def _line_of(kind: FailureKind, text: str) -> str:
    """The line that told, and what follows."""
    found = kind.pattern.search(text)
    return _short(text[text.rfind("\n", 0, found.start()) + 1 :] if found else text)


def _listed(names: tuple[str, ...]) -> str:
    return ("node " if len(names) == 1 else "nodes ") + ", ".join(sorted(names)) if names else ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:297] + "..."


def _without_what_varies(text: str) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = re.sub(r"(\b[a-z0-9+.-]+:/)?/[^\s'\",:;)\]]+", "<path>", text, flags=re.IGNORECASE)
    text = re.sub(r"\b0x[0-9a-f]+\b|\b(?=[0-9a-f-]*\d)[0-9a-f-]{8,}\b", "<id>", text, flags=re.IGNORECASE)
    return re.sub(r"\d+(\.\d+)*(e[+-]?\d+)?", "<n>", text)
