"""A submit that is not made: would it be accepted, when would it start, and has it enough memory?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scheduler.api.forecasts import MemoryEstimate, PlanAnswer
from scheduler.api.problems import not_valid
from scheduler.api.serialize import shown
from scheduler.core import lifecycle, placement
from scheduler.core.memory_estimate import ModelShape, Training, memory
from scheduler.core.model import JobId, JobSpec, Json, Node
from scheduler.engine import dependencies
from scheduler.engine.cluster import Cluster
from scheduler.engine.job_store import JobStore
from scheduler.engine.queries.forecaster import END_OF_LINE, Forecaster
from scheduler.engine.spec_validation import SpecValidator
from scheduler.errors import InvalidSpec
from scheduler.ports import Clock

_UNSUBMITTED = JobId("plan")


class SubmitPreview:
    """Reads; changes nothing, and queues nothing."""

    def __init__(
        self,
        validator: SpecValidator,
        store: JobStore,
        cluster: Cluster,
        forecaster: Forecaster,
        clock: Clock,
    ) -> None:
        self._validator, self._store, self._cluster = validator, store, cluster
        self._forecaster, self._clock = forecaster, clock

    async def of(self, spec: JobSpec) -> PlanAnswer:
        try:
            accepted = await self._validator.admit(spec, self._cluster.possible_nodes())
            await dependencies.check(self._store, [spec])
        except InvalidSpec as error:
            return not_valid(error)
        spec = accepted.spec
        snapshot, written = self._cluster.snapshot(), self._validator.as_it_would_run(shown(spec))
        job = lifecycle.accept(_UNSUBMITTED, spec, at=self._clock.now(), queue_seq=END_OF_LINE)
        forecast = await self._forecaster.of(job)
        try:
            needed = await self._memory(spec, written["config"], snapshot.nodes)
            doubt = _shortage(needed)
        except ValueError as error:
            needed, doubt = None, f"; how much memory it needs is not known: {error}"
        return PlanAnswer(
            valid=True,
            fits=placement.fit(spec.resources, snapshot) is not None,
            forecast=forecast,
            memory=needed,
            message="; ".join([f"it would be accepted: {forecast.message}{doubt}", *accepted.notes]),
            spec=written,
        )

    async def _memory(self, spec: JobSpec, config: Json, nodes: tuple[Node, ...]) -> MemoryEstimate | None:
        """For `sft`; None for other loops, and for a model that is not here.  Raises ValueError."""
        if spec.loop != "sft" or not Path(config["model"]).is_absolute():
            return None  # a hub id: nothing is downloaded to answer a question
        return _estimate(await self._validator.shape(config["model"]), spec, config, nodes)


def _shortage(needed: MemoryEstimate | None) -> str:
    if needed is None or needed.available_bytes is None or needed.total_bytes <= needed.available_bytes:
        return ""
    return f"; {needed.message}"


def _estimate(shape: ModelShape, spec: JobSpec, config: Json, nodes: tuple[Node, ...]) -> MemoryEstimate:
    training = _training(spec, config)
    parts = memory(shape, training)
    total = sum(parts.values())
    available = _smallest(nodes) if not spec.resources.gpus_per_rank else None
    return MemoryEstimate(
        total_bytes=total,
        parts=parts,
        available_bytes=available,
        message=_in_words(total, available, training, on_gpu=spec.resources.gpus_per_rank > 0),
    )


def _training(spec: JobSpec, config: dict[str, Any]) -> Training:
    on_gpu = spec.resources.gpus_per_rank > 0
    return Training(
        method=config["method"],
        half=config["precision"] == "bf16" or (config["precision"] == "auto" and on_gpu),
        tokens=config["batch_size"] * config["max_length"],
        lora_rank=config["lora"]["r"],
        target_modules=config["lora"]["target_modules"],
        num_ranks=spec.resources.most,
    )


def _smallest(nodes: tuple[Node, ...]) -> int | None:
    return min((node.memory_bytes for node in nodes if node.memory_bytes is not None), default=None)


def _in_words(total: int, available: int | None, training: Training, *, on_gpu: bool) -> str:
    counted = "in bfloat16" if training.half else "in float32"
    needs = f"a rank needs roughly {_gigabytes(total)} ({counted}; without the libraries themselves)"
    if available is None:
        whose = "a GPU" if on_gpu else "a node"
        return f"{needs}; how much memory {whose} has is not known here"
    here = f"the smallest node has {_gigabytes(available)} for all of its ranks"
    if total <= available:
        return f"{needs}; {here}"
    remedy = "use a smaller batch_size or max_length" + ("" if training.method == "lora" else ", or lora")
    return f"{needs}, and {here}: {remedy}"


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{max(0.1, num_bytes / 1e6):.1f} MB"
