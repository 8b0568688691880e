"""torch's process group over the ranks of a run, for a run whose own actor and controller have no torch.

Ray Train's `TorchConfig` brings torch into these two, which compute nothing: three seconds of a processor each, in
every run.  Here the ranks alone do the same, by Ray Train's own functions.  Imported when a run starts: Ray Train
takes seconds too.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.train.backend import Backend, BackendConfig

from scheduler.runs import ray_internals

log = logging.getLogger(__name__)

LEAVES_WITHIN_S = 30.0
"""As long as Ray Train waits: a rank that hangs in the group must not keep the run from ending."""


class OnItsGpu:
    """What Ray Train enters around the loop on each rank."""

    def __enter__(self) -> None:
        import torch
        from ray.train.torch import get_device

        if torch.cuda.is_available() and (device := get_device()).type == "cuda":
            torch.cuda.set_device(device)

    def __exit__(self, *raised: object) -> None: ...


class TorchBackend(Backend):
    """Runs in the controller; everything that needs torch is sent to the ranks."""

    share_cuda_visible_devices = True  # so that NCCL finds a way from one GPU of a node to the other

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        assert isinstance(backend_config, ProcessGroup)
        world_size = len(worker_group)
        address, port = worker_group.execute_single(0, ray_internals.free_address)
        worker_group.execute(ray_internals.set_torch_environment, address, port)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, ray_internals.join_process_group, backend_config.backend, rank, world_size
                )
                for rank in range(world_size)
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        leaving = worker_group.execute_async(ray_internals.leave_process_group, len(worker_group) > 1)
        try:
            ray.get(leaving, timeout=LEAVES_WITHIN_S)
        except GetTimeoutError:
            log.warning("the ranks did not leave the process group within %g s", LEAVES_WITHIN_S)


@dataclass(frozen=True)
class ProcessGroup(BackendConfig):
    """For `DataParallelTrainer(backend_config=...)`.  *backend*: `nccl` or `gloo`."""

    backend: str

    @property
    def backend_cls(self) -> type[Backend]:
        return TorchBackend

    @property
    def train_func_context(self) -> Any:
        return OnItsGpu

    @property
    def framework(self) -> Any:
        """For the page of Ray Train on the Ray dashboard."""
        return ray_internals.torch_framework()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
