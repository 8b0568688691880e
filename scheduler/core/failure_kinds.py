"""The failures that are known by their words: what each is called, who is answerable, and what helps."""

from __future__ import annotations

import re
from dataclasses import dataclass

from scheduler.core.model import Cause


@dataclass(frozen=True, slots=True)
class FailureKind:
    """A failure that is known by its words.  Python names some, C++ libraries others; nobody gives numbers."""

    code: str
    cause: Cause
    pattern: re.Pattern[str]
    what: str
    advice: str
    is_echo: bool = False
    """May be nothing but the failure of another rank, as it looks from here."""
    only_own: bool = False
    """Counts only for the exception itself, not for one it was raised from: programs handle such ones."""


def _kind(code: str, cause: Cause, *words: str, what: str, advice: str, **more: bool) -> FailureKind:
    return FailureKind(
        code, cause, re.compile("|".join(words), re.IGNORECASE | re.MULTILINE), what, advice, **more
    )


# The first that fits counts.  A GPU that fails is often told by NCCL, so NCCL comes after it.
KINDS = (
    _kind(
        "out_of_memory",
        Cause.INFRASTRUCTURE,
        r"killed due to the node running low on memory",
        r"out of memory: killed process",
        r"oom-kill:constraint",
        what="was killed because its node ran out of memory",
        advice="load less at once, use fewer data loader workers, or give it a node with more memory to itself",
    ),
    _kind(
        "out_of_gpu_memory",
        Cause.USER,
        r"(CUDA|HIP|XPU|MPS backend|GPU) out of memory",
        r"CUDA error: out of memory",
        r"Cuda failure \d* ?'out of memory'",
        r"CU(BLAS|DNN|SPARSE)_STATUS_ALLOC_FAILED",
        r"(CUDA|HIP)_ERROR_OUT_OF_MEMORY",
        what="ran out of GPU memory",
        advice="use a smaller batch_size with more gradient accumulation, shorter sequences, "
        "or a GPU with more memory",
    ),
    _kind(
        "cuda_error",
        Cause.INFRASTRUCTURE,
        r"uncorrectable (ECC|NVLink)",
        r"ECC_UNCORRECTABLE",
        r"fallen off the bus",
        r"GPU is lost",
        r"\bXid\b.{0,40}\d",
        r"unspecified launch failure",
        r"hardware stack error",
        r"devices? (is|are|\(s\) is/are) busy or unavailable",
        r"driver shutting down",
        r"CUDA unknown error",
        what="lost its GPU",
        advice="look at the GPU and the kernel log (Xid) of its node, and take the node out if it comes again",
    ),
    _kind(
        "no_gpu",
        Cause.USER,
        r"no CUDA-capable device",
        r"No CUDA GPUs are available",
        r"Found no NVIDIA driver",
        what="wants a GPU and has none",
        advice="ask for one with resources.gpus_per_rank, or let the loop use the CPU",
    ),
    _kind(
        "cuda_error",
        Cause.USER,
        r"device-side assert",
        r"illegal memory access",
        r"(CUDA|CUDNN|CUBLAS|HIP) error",
        r"CU(BLAS|DNN|SPARSE)_STATUS_(?!SUCCESS)\w+",
        what="failed in its GPU code",
        advice="most often an index or a label is out of range; run it once with CUDA_LAUNCH_BLOCKING=1 "
        "to see the line that did it",
    ),
    _kind(
        "disk_full",
        Cause.INFRASTRUCTURE,
        r"No space left on device",
        r"Disk quota exceeded",
        r"\[Errno (28|122)\]",
        r"\bENOSPC\b",
        r"OutOfDiskError",
        r"PytorchStreamWriter failed writing",
        r"inline_container\S* \. unexpected pos",
        what="could not write: the disk, or its quota, is full",
        advice="free some space there, or keep fewer checkpoints (checkpoints.keep_last)",
    ),
    _kind(
        "out_of_memory",
        Cause.USER,
        r"^(numpy\S*\.)?_?(Array)?MemoryError\b",
        r"std::bad_alloc",
        r"Cannot allocate memory",
        r"can't allocate memory",
        r"out of shared memory",
        r"insufficient shared memory",
        what="ran out of memory",
        advice="load less at once, use fewer data loader workers, or ask for a node with more memory",
    ),
    _kind(
        "killed",
        Cause.INFRASTRUCTURE,
        r"DataLoader worker \(pid\S* [\d, ]+\) is killed by signal",
        what="lost a data loader process",
        advice="most often the kernel killed it for want of memory: use fewer data loader workers, "
        "and look at the kernel log of its node",
    ),
    _kind(
        "killed",
        Cause.INFRASTRUCTURE,
        r"^KeyboardInterrupt\b",
        what="was interrupted from outside (SIGINT)",
        advice="look for who signals the processes of its node",
        only_own=True,
    ),
    _kind(
        "exited",
        Cause.USER,
        r"^SystemExit\b",
        what="left by sys.exit instead of returning",
        advice="return from the loop when it is done, and raise when something is wrong",
        only_own=True,
    ),
    _kind(
        "nccl",
        Cause.INFRASTRUCTURE,
        r"Dist(Backend|Network|Store)Error",
        r"\bNCCL\b.{0,20}\b(error|timeout|timed out|failed|abort|watchdog)",
        r"\bnccl(System|Internal|Remote|UnhandledCuda)Error",
        r"ProcessGroup(NCCL|Gloo)",
        r"watchdog caught collective",
        r"gloo/transport",
        r"gloo\S* connectFullMesh",
        r"Application timeout caused pair closure",
        r"TCPStore",
        r"c10d.{0,40}(socket|store)",
        r"have not joined the collective operation",
        r"monitoredBarrier",
        what="lost contact with the other ranks",
        advice="look at the network between its nodes, and for a rank that fell silent before",
        is_echo=True,
    ),
    _kind(
        "data_missing",
        Cause.USER,
        r"^(\w+\.)*(FileNotFoundError|NotADirectoryError|DatasetNotFoundError|RepositoryNotFoundError)\b",
        r"is not a local folder and is not a valid model identifier",
        what="did not find a file or data set",
        advice="check the path in the config, and that every node sees it",
        only_own=True,
    ),
)
