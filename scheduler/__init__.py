"""A training-job scheduler on Ray whose job states are true.

    >>> import scheduler
    >>> job = scheduler.submit(loop="torch_ddp", config={"steps": 100})
    >>> print(job.wait().status)
    completed

Everything here talks HTTP to a running scheduler (`SCHEDULER_URL`); Ray is not needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scheduler.api.jobs import JobDocument
    from scheduler.client import (
        AsyncClient,
        AsyncJobHandle,
        Client,
        JobHandle,
        array,
        cancel,
        cancel_array,
        force_start,
        forget_project,
        get,
        list_jobs,
        plan,
        projects,
        set_project,
        submit,
        submit_array,
        wait,
    )
    from scheduler.client.spec_file import load_spec
    from scheduler.core.model import Gang, JobSpec, Status
    from scheduler.errors import (
        BodyTooLarge,
        InvalidRequest,
        InvalidSpec,
        JobFailed,
        JobNotCompleted,
        JobNotFound,
        NotAllowed,
        RegistryUnavailable,
        SchedulerError,
        ServerUnreachable,
        Unauthorized,
        WaitTimedOut,
    )

    __version__: str

# Loaded on first use: `import scheduler` costs nothing, in a notebook as in every process of a run.
_HOME = {
    "scheduler.client": (
        "AsyncClient",
        "AsyncJobHandle",
        "Client",
        "JobHandle",
        "array",
        "cancel",
        "cancel_array",
        "force_start",
        "forget_project",
        "get",
        "list_jobs",
        "plan",
        "projects",
        "set_project",
        "submit",
        "submit_array",
        "wait",
    ),
    "scheduler.client.spec_file": ("load_spec",),
    "scheduler.core.model": ("Gang", "JobSpec", "Status"),
    "scheduler.api.jobs": ("JobDocument",),
    "scheduler.errors": (
        "BodyTooLarge",
        "InvalidRequest",
        "InvalidSpec",
        "JobFailed",
        "JobNotCompleted",
        "JobNotFound",
        "NotAllowed",
        "RegistryUnavailable",
        "SchedulerError",
        "ServerUnreachable",
        "Unauthorized",
        "WaitTimedOut",
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "AsyncClient",
    "AsyncJobHandle",
    "BodyTooLarge",
    "Client",
    "Gang",
    "InvalidRequest",
    "InvalidSpec",
    "JobDocument",
    "JobFailed",
    "JobHandle",
    "JobNotCompleted",
    "JobNotFound",
    "JobSpec",
    "NotAllowed",
    "RegistryUnavailable",
    "SchedulerError",
    "ServerUnreachable",
    "Status",
    "Unauthorized",
    "WaitTimedOut",
    "__version__",
    "array",
    "cancel",
    "cancel_array",
    "force_start",
    "forget_project",
    "get",
    "list_jobs",
    "load_spec",
    "plan",
    "projects",
    "set_project",
    "submit",
    "submit_array",
    "wait",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _MODULE_OF:
        value = getattr(import_module(_MODULE_OF[name]), name)
    else:
        raise AttributeError(f"module 'scheduler' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("training-scheduler")
    except PackageNotFoundError:
        return "0+source"  # a checkout on PYTHONPATH that was never installed
