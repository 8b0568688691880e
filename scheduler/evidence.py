"""How a run ended that did not complete: what it left behind and what Ray says, brought to a diagnosis."""

from __future__ import annotations

from typing import Any

from scheduler.core.diagnosis import Died, Evidence, Raised, diagnose, signature
from scheduler.core.model import Cause, Ending, Outcome, Reason
from scheduler.errors import CheckpointTorn
from scheduler.run_folder import RunFolder

TAIL_BYTES = 4096
"""Of each rank's log; kept with the attempt."""


def failure(folder: RunFolder, error: Exception) -> Outcome:
    """Of a run whose `fit()` raised *error*."""
    if isinstance(error, CheckpointTorn):
        reason = Reason(code=error.code, message=error.message)
        return Outcome(ending=Ending.FAILED, cause=Cause.USER, reason=reason, signature=error.code)
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    raised = _raised(folder)
    untold = {rank: seen for rank, seen in failures.items() if rank not in {one.rank for one in raised}}
    died = {
        rank: seen for rank, seen in untold.items() if type(seen).__name__.startswith("WorkerHealthCheck")
    }
    return _diagnosed(
        folder,
        raised=(*raised, *(_unwritten(rank, seen) for rank, seen in untold.items() if rank not in died)),
        died=tuple(Died(rank=rank, said=_words(seen)) for rank, seen in died.items()),
        controller="" if failures else _words(getattr(error, "controller_failure", error)),
    )


def lost(folder: RunFolder, seen: str, error: Exception | None = None) -> Outcome:
    """Of a run whose actor is gone without a final record; *seen* says so in words."""
    if ended := folder.ended():
        return folder.account(Outcome(ending=Ending.STOPPED, reason=ended))
    told = str(error or "")
    of_its_node = told if "its node has died" in told or "NodeDiedError" in told else ""
    outcome = _diagnosed(folder, raised=_raised(folder), controller=of_its_node)
    if outcome.reason.code != "run_lost":
        return outcome
    reason = Reason(code="run_lost", message=seen, detail=str(error) if error else None)
    return folder.account(Outcome(ending=Ending.LOST, cause=Cause.INFRASTRUCTURE, reason=reason))


def _diagnosed(folder: RunFolder, **seen: Any) -> Outcome:
    tails = folder.log_tails(TAIL_BYTES)
    gone, drained = _nodes_gone(folder)
    evidence = Evidence(
        nodes_lost=gone,
        nodes_drained=drained,
        tails={int(rank): text for rank, text in tails.items()},
        **seen,
    )
    found = diagnose(evidence)
    return folder.account(
        Outcome(
            ending=Ending.FAILED if found.cause is Cause.USER else Ending.LOST,
            cause=found.cause,
            reason=Reason(code=found.code, message=found.message, detail=found.detail),
            signature=signature(found),
            evidence={"logs": tails} if tails else None,
        )
    )


def _raised(folder: RunFolder) -> tuple[Raised, ...]:
    return tuple(
        Raised(
            rank=row["rank"],
            type=row["type"],
            message=row["message"],
            traceback=row["traceback"],
            at_s=row["at"],
        )
        for row in folder.errors()
    )


def _unwritten(rank: int, error: Exception) -> Raised:
    """Raised on a rank that could not leave a record of it, as with a full disk."""
    return Raised(rank=rank, type=type(error).__name__, message=str(error))


def _nodes_gone(folder: RunFolder) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of nodes of the run that are dead, and of those that were told to empty themselves."""
    import ray
    from ray._private.state import state

    held = {rank.node_id for rank in folder.ranks()} | {folder.node()}
    nodes = [node for node in ray.nodes() if node["NodeID"] in held]
    draining = set(state.get_draining_nodes())
    dead = [node for node in nodes if not node["Alive"]]
    drained = [node for node in nodes if node["NodeID"] in draining]
    return _names(dead), _names(drained)


def _names(nodes: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(f"{node['NodeName']} ({node['NodeID'][:8]})" for node in nodes)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
