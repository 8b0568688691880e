"""How a run ended: by the word of its ranks; else what it left behind and what Ray says, brought to a diagnosis."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from scheduler.core.diagnosis import Died, Evidence, Raised, diagnose, signature
from scheduler.core.lifecycle import NODE_LOST
from scheduler.core.model import OPERATOR_DOWN, Cause, Ending, NodeId, Outcome, Reason
from scheduler.core.plain_values import plain_error, plain_text
from scheduler.core.post_mortem_budget import within_budget, worst_first
from scheduler.core.run_end import ending_by_record
from scheduler.errors import CheckpointUnusable
from scheduler.runs.ray_internals import draining_nodes, is_death_of_rank
from scheduler.runs.run_dir import RunDir

TAIL_BYTES = 4096
"""Of each rank's log; kept with the attempt."""


def finished(folder: RunDir) -> Outcome | None:
    """How the run ended by the word of its ranks; None where they do not prove that they are done."""
    proof = ending_by_record(folder.returned(), was_asked_to_stop=folder.stop_file.exists())
    if proof is None:
        return None
    ending, first = proof
    reason = (
        Reason(code="stopped", message="the loop saved and returned, as asked")
        if ending is Ending.STOPPED
        else Reason(code="completed", message="every rank returned")
    )
    result = {"output_dir": folder.output(), "metrics": first.result, "notes": list(first.notes)}
    return folder.account(Outcome(ending=ending, reason=reason, result=result))


def failure(folder: RunDir, error: Exception) -> Outcome:
    """Of a run whose `fit()` raised *error*."""
    if isinstance(error, CheckpointUnusable):
        reason = Reason(code=error.code, message=error.message)
        return Outcome(ending=Ending.FAILED, cause=Cause.USER, reason=reason, signature=error.code)
    if done := finished(folder):
        return done  # what failed came after the work
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    raised = _raised(folder)
    untold = {rank: seen for rank, seen in failures.items() if rank not in {one.rank for one in raised}}
    died = {rank: _words(seen) for rank, seen in untold.items() if is_death_of_rank(seen)}
    return _diagnosed(
        folder,
        raised=(*raised, *(_unwritten(rank, seen) for rank, seen in untold.items() if rank not in died)),
        died=died,
        controller="" if failures else _words(getattr(error, "controller_failure", error)),
    )


def silent(folder: RunDir, num_ranks: int) -> Outcome:
    """Of a run whose `fit()` returned, though not every rank left a record that its loop did."""
    there = {one.rank for one in folder.returned()}
    said = "its thread ended, and left no record that the loop returned or raised"
    return _diagnosed(folder, died={rank: said for rank in range(num_ranks) if rank not in there})


def lost(folder: RunDir, seen: str, error: Exception | None = None) -> Outcome:
    """Of a run whose actor is gone without a final record; *seen* says so in words."""
    if done := finished(folder):
        return done
    if (ended := folder.ended()) and ended.code == NODE_LOST:
        dead, _ = _dead_and_drained(folder)
        outcome = Outcome(ending=Ending.LOST, cause=Cause.INFRASTRUCTURE, reason=ended, failed_on=_ids(dead))
        return folder.account(outcome)
    if ended:
        return folder.account(Outcome(ending=Ending.STOPPED, reason=ended))
    told = plain_text(error or "")
    of_its_node = told if "its node has died" in told or "NodeDiedError" in told else ""
    outcome = _diagnosed(folder, controller=of_its_node)
    if outcome.reason.code != "run_lost":
        return outcome
    reason = Reason(code="run_lost", message=seen, detail=told or None)
    return folder.account(Outcome(ending=Ending.LOST, cause=Cause.INFRASTRUCTURE, reason=reason))


def stopped_by_operator(folder: RunDir, outcome: Outcome) -> Outcome:
    """Who ends a scheduler leaves word in the folder of each run first: what died after that, died of it."""
    told = folder.ended()
    if told is None or told.code != OPERATOR_DOWN:
        return outcome
    if outcome.ending is Ending.COMPLETED or outcome.cause is Cause.USER:
        return outcome
    return replace(outcome, ending=Ending.STOPPED, cause=None, reason=told, signature=None)


def _diagnosed(
    folder: RunDir,
    *,
    raised: tuple[Raised, ...] | None = None,
    died: Mapping[int, str] = MappingProxyType({}),
    controller: str = "",
) -> Outcome:
    """*died* is what Ray says of each rank whose process went; *controller* what it says of the run."""
    tails, codes = folder.log_tails(TAIL_BYTES), folder.exits()
    dead, drained = _dead_and_drained(folder)
    evidence = Evidence(
        raised=_raised(folder) if raised is None else raised,
        died=tuple(
            Died(rank=rank, said=died.get(rank, ""), exit_code=codes.get(rank))
            for rank in sorted(died.keys() | codes.keys())
        ),
        nodes_lost=_names(dead),
        nodes_drained=_names(drained),
        tails={int(rank): text for rank, text in tails.items()},
        controller=controller,
    )
    found = diagnose(evidence)
    return folder.account(
        Outcome(
            ending=Ending.FAILED if found.cause is Cause.USER else Ending.LOST,
            cause=found.cause,
            reason=Reason(code=found.code, message=found.message, detail=found.detail),
            signature=signature(found),
            evidence=within_budget({"logs": tails}, worst_first(evidence.raised, evidence.died)),
            failed_on=_ids(dead) or _node_of(folder, [one.rank for one in evidence.died]),
        )
    )


def _raised(folder: RunDir) -> tuple[Raised, ...]:
    return tuple(
        Raised(
            rank=row["rank"],
            type=row["type"],
            module=row.get("module", ""),
            message=row["message"],
            traceback=row["traceback"],
            at_s=row["at"],
        )
        for row in folder.errors()
    )


def _unwritten(rank: int, error: Exception) -> Raised:
    """Raised on a rank that could not leave a record of it, as with a full disk."""
    told = plain_error(error)
    return Raised(rank=rank, type=told["type"], message=told["message"])


def _dead_and_drained(folder: RunDir) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Of the nodes of the run those that are dead, and those that were told to empty themselves."""
    import ray

    held = {rank.node_id for rank in folder.ranks()} | {folder.node()}
    nodes = [node for node in ray.nodes() if node["NodeID"] in held]
    draining = draining_nodes()
    dead = [node for node in nodes if not node["Alive"]]
    return dead, [node for node in nodes if node["NodeID"] in draining]


def _node_of(folder: RunDir, died: Collection[int]) -> tuple[NodeId, ...]:
    """Where all ranks that *died* were; when several nodes had some, which of them began it is not known."""
    nodes = {rank.node_id for rank in folder.ranks() if rank.rank in died}
    return tuple(map(NodeId, nodes)) if len(nodes) == 1 else ()


def _ids(nodes: list[dict[str, Any]]) -> tuple[NodeId, ...]:
    return tuple(NodeId(node["NodeID"]) for node in nodes)


def _names(nodes: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(f"{node['NodeName']} ({node['NodeID'][:8]})" for node in nodes)


def _words(error: Exception) -> str:
    told = plain_error(error)
    return f"{told['type']}: {told['message']}"
