"""From what a run left behind to who is answerable.  The texts are those of torch, NCCL, gloo, Ray and Linux, shortened."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.diagnosis import Died, Evidence, Raised, diagnose, signature
from scheduler.core.model import Cause

USER, INFRASTRUCTURE, PREEMPTION = Cause.USER, Cause.INFRASTRUCTURE, Cause.PREEMPTION

GPU_MEMORY = (
    "CUDA out of memory. Tried to allocate 22.00 MiB. GPU 0 has a total capacity of 23.65 GiB of which 11.06 MiB is "
    "free. Including non-PyTorch memory, this process has 23.60 GiB memory in use. Of the allocated memory 22.90 GiB "
    "is allocated by PyTorch, and 194.87 MiB is reserved by PyTorch but unallocated."
)
ASSERT = (
    "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported at some other API "
    "call, so the stacktrace below might be incorrect.\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side "
    "assertions."
)
ECC = (
    "CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be asynchronously reported\n"
    "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."
)
NCCL_SOCKET = (
    "NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:1333, unhandled system error (run with "
    "NCCL_DEBUG=INFO for details), NCCL version 2.18.6\nncclSystemError: System call (e.g. socket, malloc) or "
    "external library call failed or device error.\nLast error:\nsocketStartConnect: Connect to "
    "192.168.19.14<52822> failed : No route to host"
)
NCCL_MEMORY = (
    "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:219, unhandled cuda error, NCCL version 2.21.5\n"
    "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'"
)
GLOO_RESET = (
    "[/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:20675: Connection "
    "reset by peer. This is typically caused by a remote worker hanging or bugs in the application."
)
GLOO_CLOSED = (
    "[/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer "
    "[127.0.0.1]:8089. This is typically caused by a remote worker crashing."
)
GLOO_TIMEOUT = (
    "[/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1800000ms for "
    "recv operation to complete"
)
CPU_MEMORY = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "281474976710656 bytes. Error code 12 (Cannot allocate memory)"
)
DISK_FULL = "[enforce fail at inline_container.cc:857] . PytorchStreamWriter failed writing file data/322: file write failed"
NO_ANSWERS = "The following ranks have not joined the collective operation: [1]"

DEAD = (
    "A worker health check failed.\nThe actor died unexpectedly before finishing this task.\n\tclass_name: A\n"
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
)
NO_WORD = (
    DEAD
    + "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) "
    "the process was killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the "
    "worker crashed unexpectedly due to SIGSEGV or another unexpected error."
)
NO_WORD_OLD = (
    DEAD
    + "Worker unexpectedly exits with a connection error code 2. End of file. There are some potential root "
    "causes. (1) The process is killed by SIGKILL by OOM killer due to high memory usage. (2) ray stop --force is "
    "called. (3) The worker is crashed unexpectedly due to SIGSEGV or other unexpected errors."
)
EXIT_CODE = DEAD + "Worker exits unexpectedly. Worker exits with an exit code 7."
RAY_MEMORY = (
    "A worker health check failed.\n1 worker(s) were killed due to the node running low on memory. Memory on the node "
    "(IP: 192.0.2.2, ID: 73aa38) was 4.72GB used / 23.54GB limit (0.200429)\nOOM kill reason: Memory usage "
    "5066055680B exceeded threshold of 5055213056B"
)
RAY_MEMORY_OLD = (
    "Task was killed due to the node running low on memory.\nMemory on the node (IP: 192.168.0.107) where the task "
    "was running was 59.49GB / 62.58GB (0.950744), which exceeds the memory usage threshold of 0.95."
)
NODE_DIED = (
    "The actor died unexpectedly before finishing this task.\nThe actor died because its node has died. Node Id: "
    "72d8f8\n\tthe actor's node was terminated unexpectedly: health check failed due to missing too many heartbeats"
)
NODE_PREEMPTED = "The actor died because its node has died. Node Id: 72d8f8\n\tthe actor's node was preempted: spot reclaim"
UNANSWERED = "A worker health check has been hanging for 600.12 seconds. Marking the worker as dead."
STARTUP = (
    "ControllerError: Training failed due to controller error:\nThe worker group startup timed out after 60.0 seconds "
    "waiting for 8 workers. Potential causes include: (1) temporary insufficient cluster resources"
)

WATCHDOG = (
    "step 12 loss 0.4\n"
    "[rank1]:[E ProcessGroupNCCL.cpp:616] [Rank 1] Watchdog caught collective operation timeout: "
    "WorkNCCL(SeqNum=808, OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600061 milliseconds before timing out.\n"
    "[rank1]:[E ProcessGroupNCCL.cpp:695] [Rank 1] To avoid data inconsistency, we are taking the entire process down.\n"
    "terminate called after throwing an instance of 'c10::DistBackendError'\n"
    "  what():  [PG 1 Rank 1] Process group watchdog thread terminated with exception: [Rank 1] Watchdog caught\n"
)
WATCHDOG_ECC = (
    "[rank1]:[E ProcessGroupNCCL.cpp:1182] [Rank 1] NCCL watchdog thread terminated with exception: CUDA error: "
    "uncorrectable ECC error encountered\n"
)
SEGFAULT = (
    "*** SIGSEGV received at time=1769401922 on cpu 33 ***\nPC: @     0x7f59e8bb20bc  (unknown)  (unknown)\n"
    "Fatal Python error: Segmentation fault\n"
)
BAD_ALLOC = "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"
KERNEL = (
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),task=ray::RayTrainWo,pid=4711\n"
    "Memory cgroup out of memory: Killed process 4711 (ray::RayTrainWo) total-vm:2048000kB, anon-rss:1800000kB"
)


def raised(kind: str, message: str, *, rank: int = 0, at_s: float = 0.0, traceback: str = "") -> Raised:
    return Raised(rank=rank, type=kind, message=message, at_s=at_s, traceback=traceback)


def one(kind: str, message: str) -> Evidence:
    return Evidence(raised=(raised(kind, message, rank=1),))


def dead(said: str = NO_WORD, tail: str = "", exit_code: int | None = None, kernel: str = "") -> Evidence:
    died = Died(rank=1, said=said, exit_code=exit_code)
    return Evidence(died=(died,), tails={1: tail} if tail else {}, kernel=kernel)


@pytest.mark.parametrize(
    ("sentence", "evidence", "code", "cause", "says"),
    [
        (
            "a plain exception is the user's",
            one("ValueError", "loss is nan"),
            "loop_failed",
            USER,
            "ValueError: loss",
        ),
        ("an exception without words too", one("AssertionError", ""), "loop_failed", USER, "no message"),
        (
            "the GPU is too small",
            one("OutOfMemoryError", GPU_MEMORY),
            "out_of_gpu_memory",
            USER,
            "smaller batch_size",
        ),
        (
            "so it is when NCCL notices",
            one("DistBackendError", NCCL_MEMORY),
            "out_of_gpu_memory",
            USER,
            "GPU memory",
        ),
        (
            "cuBLAS has its own word for it",
            one("RuntimeError", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "out_of_gpu_memory",
            USER,
            "batch_size",
        ),
        ("the process has no memory left", one("MemoryError", ""), "out_of_memory", USER, "load less"),
        (
            "numpy says how much it wanted",
            one(
                "_ArrayMemoryError", "Unable to allocate 8.00 PiB for an array with shape (1125899906842624,)"
            ),
            "out_of_memory",
            USER,
            "8.00 PiB",
        ),
        (
            "torch on the CPU too",
            one("RuntimeError", CPU_MEMORY),
            "out_of_memory",
            USER,
            "Cannot allocate memory",
        ),
        (
            "/dev/shm is too small for the data loader",
            one(
                "RuntimeError",
                "DataLoader worker (pid 11011) is killed by signal: Bus error. It is possible that dataloader's "
                "workers are out of shared memory. Please try to raise your shared memory limit.",
            ),
            "out_of_memory",
            USER,
            "fewer data loader workers",
        ),
        (
            "the kernel took a data loader process",
            one("RuntimeError", "DataLoader worker (pid 19597) is killed by signal: Killed. "),
            "killed",
            INFRASTRUCTURE,
            "fewer data loader workers",
        ),
        (
            "an index is out of range on the GPU",
            one("RuntimeError", ASSERT),
            "cuda_error",
            USER,
            "CUDA_LAUNCH_BLOCK",
        ),
        (
            "a GPU is broken, though torch adds a word on assertions",
            one("RuntimeError", ECC),
            "cuda_error",
            INFRASTRUCTURE,
            "take the node out",
        ),
        (
            "a GPU went away",
            one("RuntimeError", "CUDA error: unspecified launch failure"),
            "cuda_error",
            INFRASTRUCTURE,
            "rank 1 lost its GPU",
        ),
        (
            "nobody asked for a GPU",
            one("RuntimeError", "No CUDA GPUs are available"),
            "no_gpu",
            USER,
            "resources.gpus_per_rank",
        ),
        ("the network is down", one("DistBackendError", NCCL_SOCKET), "nccl", INFRASTRUCTURE, "lost contact"),
        (
            "gloo lost a peer",
            one("RuntimeError", GLOO_CLOSED),
            "nccl",
            INFRASTRUCTURE,
            "Connection closed by peer",
        ),
        ("gloo waited in vain", one("RuntimeError", GLOO_TIMEOUT), "nccl", INFRASTRUCTURE, "lost contact"),
        (
            "the ranks did not find each other",
            one("DistStoreError", "Timed out after 601 seconds waiting for clients. 1/2 clients joined."),
            "nccl",
            INFRASTRUCTURE,
            "lost contact",
        ),
        (
            "the disk is full",
            one("OSError", "[Errno 28] No space left on device: '/mnt/storage/ckpt'"),
            "disk_full",
            INFRASTRUCTURE,
            "keep fewer checkpoints",
        ),
        (
            "torch has other words for it",
            one("RuntimeError", DISK_FULL),
            "disk_full",
            INFRASTRUCTURE,
            "keep fewer",
        ),
        (
            "a quota is reached",
            one("OSError", "[Errno 122] Disk quota exceeded"),
            "disk_full",
            INFRASTRUCTURE,
            "its quota",
        ),
        (
            "a data set is not there",
            one("FileNotFoundError", "[Errno 2] No such file or directory: '/data/train.jsonl'"),
            "data_missing",
            USER,
            "/data/train.jsonl",
        ),
        (
            "nor is a model",
            one(
                "OSError",
                "foo/bar is not a local folder and is not a valid model identifier listed on the hub",
            ),
            "data_missing",
            USER,
            "every node sees it",
        ),
        ("the loop calls sys.exit", one("SystemExit", "3"), "exited", USER, "SystemExit: 3"),
        ("somebody sent SIGINT", one("KeyboardInterrupt", ""), "killed", INFRASTRUCTURE, "SIGINT"),
        ("a rank is gone and nobody knows", dead(), "killed", INFRASTRUCTURE, "died without a word"),
        (
            "an older Ray guesses with other words",
            dead(NO_WORD_OLD),
            "killed",
            INFRASTRUCTURE,
            "died without a word",
        ),
        (
            "Ray killed it for want of memory",
            dead(RAY_MEMORY),
            "out_of_memory",
            INFRASTRUCTURE,
            "4.72GB used / 23.54GB",
        ),
        ("an older Ray did", dead(RAY_MEMORY_OLD), "out_of_memory", INFRASTRUCTURE, "59.49GB / 62.58GB"),
        ("the kernel killed it", dead(kernel=KERNEL), "out_of_memory", INFRASTRUCTURE, "Killed process 4711"),
        ("C++ had no memory", dead(tail=BAD_ALLOC, exit_code=-6), "out_of_memory", USER, "std::bad_alloc"),
        ("it was killed by signal", dead(exit_code=-9), "killed", INFRASTRUCTURE, "SIGKILL"),
        ("a shell says so in its own way", dead(exit_code=137), "killed", INFRASTRUCTURE, "SIGKILL"),
        ("it crashed", dead(tail=SEGFAULT), "killed", INFRASTRUCTURE, "crashed (SIGSEGV)"),
        (
            "ray.kill was called",
            dead("The actor is dead because it was killed by `ray.kill`."),
            "killed",
            INFRASTRUCTURE,
            "ray.kill",
        ),
        ("it left with a code", dead(EXIT_CODE), "exited", USER, "exit code 7"),
        ("it left with a code that is no signal", dead(exit_code=255), "exited", USER, "exit code 255"),
        ("it left as if all were well", dead(exit_code=0), "exited", USER, "exit code 0"),
        (
            "the watchdog of NCCL ended it",
            dead(tail=WATCHDOG, exit_code=-6),
            "nccl",
            INFRASTRUCTURE,
            "ran for 600061",
        ),
        ("because its GPU broke", dead(tail=WATCHDOG_ECC), "cuda_error", INFRASTRUCTURE, "uncorrectable ECC"),
        ("it does not answer", dead(UNANSWERED), "run_lost", INFRASTRUCTURE, "did not answer"),
        ("its node is gone, says Ray", dead(NODE_DIED), "node_lost", INFRASTRUCTURE, "look at the node"),
        (
            "its node was taken away, says Ray",
            dead(NODE_PREEMPTED),
            "node_drained",
            PREEMPTION,
            "nothing is wrong",
        ),
        (
            "a node is gone, we see",
            Evidence(nodes_lost=("gpu-7",)),
            "node_lost",
            INFRASTRUCTURE,
            "node gpu-7 is gone",
        ),
        (
            "two are",
            Evidence(nodes_lost=("gpu-7", "gpu-1")),
            "node_lost",
            INFRASTRUCTURE,
            "nodes gpu-1, gpu-7",
        ),
        (
            "a node was drained and is gone",
            Evidence(nodes_lost=("gpu-7",), nodes_drained=("gpu-7",)),
            "node_drained",
            PREEMPTION,
            "node gpu-7 was taken away",
        ),
        (
            "a node was drained, and the ranks went",
            replace(dead(), nodes_drained=("gpu-7",)),
            "node_drained",
            PREEMPTION,
            "gpu-7",
        ),
        (
            "Ray Train saw the drain",
            Evidence(controller="PreemptionError: ..."),
            "node_drained",
            PREEMPTION,
            "taken",
        ),
        (
            "the gang did not come up",
            Evidence(controller=STARTUP),
            "start_timeout",
            INFRASTRUCTURE,
            "all ranks in time",
        ),
        (
            "the controller is dead",
            Evidence(controller="ActorDiedError: " + NO_WORD),
            "controller_died",
            INFRASTRUCTURE,
            "controller died",
        ),
        (
            "the controller was killed for want of memory",
            Evidence(controller="OutOfMemoryError: " + RAY_MEMORY),
            "out_of_memory",
            INFRASTRUCTURE,
            "node ran out of memory",
        ),
        (
            "Ray Train complains",
            Evidence(controller="ControllerError: boom"),
            "run_lost",
            INFRASTRUCTURE,
            "boom",
        ),
        ("there is no trace at all", Evidence(), "run_lost", INFRASTRUCTURE, "no trace"),
    ],
)
def test_a_failure_is_named(sentence: str, evidence: Evidence, code: str, cause: Cause, says: str) -> None:
    found = diagnose(evidence)
    assert (found.code, found.cause) == (code, cause), f"{sentence}: {found.message}"
    assert says in found.message, sentence
    assert "\n" not in found.message


def root(*errors: Raised, **more: object) -> tuple[str, int | None]:
    found = diagnose(replace(Evidence(raised=errors), **more))  # type: ignore[arg-type]
    return found.code, found.rank


OWN = raised("ValueError", "bad batch", rank=1, at_s=10.0)
ECHO = raised("RuntimeError", GLOO_RESET, rank=0, at_s=10.1)


def test_the_echo_of_a_failure_on_another_rank_is_not_blamed() -> None:
    """Both ranks raise; one of them only because the other went."""
    assert root(ECHO, OWN) == ("loop_failed", 1)


def test_kind_beats_time_because_clocks_of_two_nodes_differ() -> None:
    assert root(replace(ECHO, at_s=9.0), OWN) == ("loop_failed", 1)
    assert root(raised("BroadcastCollectiveTimeoutError", NO_ANSWERS, at_s=1), OWN) == ("loop_failed", 1)


def test_of_two_plain_exceptions_the_earlier_counts() -> None:
    other = raised("KeyError", "'x'", rank=0, at_s=9.0)
    assert root(OWN, other) == ("loop_failed", 0)


def test_of_echoes_alone_the_earliest_is_shown() -> None:
    assert root(ECHO, replace(ECHO, rank=3, at_s=1.0)) == ("nccl", 3)


def test_an_echo_is_explained_by_the_rank_that_died() -> None:
    """A killed rank raises nothing; its neighbours speak of connections."""
    assert root(ECHO, died=(Died(rank=1, said=NO_WORD),)) == ("killed", 1)
    assert root(ECHO, died=(Died(rank=1, said=RAY_MEMORY),)) == ("out_of_memory", 1)


def test_a_rank_that_died_does_not_hide_the_exception_of_another() -> None:
    """Ray Train ends the others when one has raised."""
    assert root(OWN, died=(Died(rank=0, said=NO_WORD),)) == ("loop_failed", 1)


def test_a_lost_node_explains_whatever_its_neighbours_raised() -> None:
    """Else the user's budget pays for a power cut, whose victims may raise anything."""
    assert root(OWN, nodes_lost=("gpu-7",))[0] == "node_lost"
    assert root(ECHO, died=(Died(rank=1, said=NODE_DIED),))[0] == "node_lost"


def test_a_drain_is_no_excuse_for_the_users_own_exception() -> None:
    assert root(OWN, nodes_drained=("gpu-7",)) == ("loop_failed", 1)
    assert root(ECHO, nodes_drained=("gpu-7",))[0] == "node_drained"


def test_of_two_dead_ranks_the_one_that_knows_why_is_the_root() -> None:
    killed, waited = Died(rank=0, said=NO_WORD, exit_code=-9), Died(rank=1, said=NO_WORD, exit_code=-6)
    assert root(died=(waited, killed), tails={1: WATCHDOG}) == ("killed", 0)
    unknown = Died(rank=0, said=NO_WORD)
    assert root(died=(unknown, waited), tails={1: WATCHDOG}) == ("nccl", 1)
    assert root(died=(killed, Died(rank=1, said=RAY_MEMORY))) == ("out_of_memory", 1)


def test_old_lines_of_a_log_are_no_last_words() -> None:
    """A program may survive a full GPU, or print one of the words; only the end of its log counts."""
    survived = "torch.OutOfMemoryError: " + GPU_MEMORY + "\nretrying with half the batch\n"
    assert diagnose(dead(tail=survived)).code == "killed"
    assert diagnose(dead(tail=WATCHDOG + "step\n" * 100)).code == "killed"


CHAIN = """Traceback (most recent call last):
  File "/home/me/train.py", line 12, in step
    loss = model(batch)  # CUDA out of memory is handled above
{first}

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/home/me/train.py", line 40, in train
    cleanup()
{second}
"""


@pytest.mark.parametrize(
    ("sentence", "first", "second", "code"),
    [
        (
            "what it was raised from counts",
            f"torch.OutOfMemoryError: {GPU_MEMORY}",
            "RuntimeError: gave up",
            "out_of_gpu_memory",
        ),
        (
            "even if an echo follows",
            f"torch.OutOfMemoryError: {GPU_MEMORY}",
            f"RuntimeError: {GLOO_RESET}",
            "out_of_gpu_memory",
        ),
        ("an echo remains one", f"RuntimeError: {GLOO_RESET}", "RuntimeError: gave up", "nccl"),
        (
            "a file that may be missing is no cause",
            "FileNotFoundError: cache",
            "ValueError: bad",
            "loop_failed",
        ),
        ("want of memory is", "MemoryError", "ValueError: bad", "out_of_memory"),
        ("nor is a line of source", "KeyError: 1", "ValueError: bad", "loop_failed"),
    ],
)
def test_an_exception_is_read_with_what_it_was_raised_from(
    sentence: str, first: str, second: str, code: str
) -> None:
    kind, _, message = second.partition(": ")
    found = diagnose(
        Evidence(raised=(raised(kind, message, traceback=CHAIN.format(first=first, second=second)),))
    )
    assert found.code == code, sentence


def test_the_diagnosis_keeps_what_was_seen() -> None:
    assert diagnose(one("ValueError", "x")).raised == raised("ValueError", "x", rank=1)
    assert diagnose(Evidence(raised=(replace(OWN, traceback="Traceback ..."),))).detail == "Traceback ..."
    assert diagnose(dead()).detail == NO_WORD


def test_a_message_stays_short() -> None:
    """It is shown in a table, in the database and in a notice; the whole is in `detail`."""
    assert len(diagnose(one("ValueError", "x" * 100_000)).message) < 500


FRAME = 'Traceback (most recent call last):\n  File "{file}", line {line}, in {function}\n    raise\nValueError: x\n'


def sign(
    message: str, *, kind: str = "ValueError", rank: int = 0, line: int = 1, function: str = "train"
) -> str | None:
    traceback = FRAME.format(file=f"/tmp/ray/session_{line}/train.py", line=line, function=function)
    return signature(diagnose(Evidence(raised=(raised(kind, message, rank=rank, traceback=traceback),))))


@pytest.mark.parametrize(
    ("one", "again"),
    [
        ("loss is nan at step 12", "loss is nan at step 4071"),
        ("cannot read /tmp/a/1.bin", "cannot read /mnt/b/2.bin"),
        ("cannot read s3://bucket/a/1.bin", "cannot read s3://other/2.bin"),
        ("<Batch object at 0x7f59e8bb20bc>", "<Batch object at 0x55aa01020304>"),
        ("run 73aa384010b2 failed at 09:15:31.5", "run 99f29cca3632 failed at 23:01:00.25"),
        ("job 0b1f6f0e-5f0c-4c7e-9a57-2f1a436e3899", "job 72d8f8ec-cb8b-aec7-6174-bd98b9dd4c69"),
        ("lr 1e-05 is too big: 3.5", "lr 2.5e-06 is too big: 17"),
        ("bad\nstep 1 of these", "bad\nwith other details"),
    ],
)
def test_the_same_failure_again_has_the_same_signature(one: str, again: str) -> None:
    assert sign(one) == sign(again, rank=3, line=99)


def test_other_failures_have_other_signatures() -> None:
    signatures = {
        sign("loss is nan"),
        sign("loss is inf"),
        sign("loss is nan", kind="TypeError"),
        sign("loss is nan", function="evaluate"),
        signature(diagnose(one("OutOfMemoryError", GPU_MEMORY))),
        signature(diagnose(one("MemoryError", ""))),
        signature(diagnose(dead(RAY_MEMORY))),
        signature(diagnose(dead(tail=SEGFAULT))),
        signature(diagnose(one("RuntimeError", DISK_FULL))),
    }
    assert len(signatures) == 9
    assert None not in signatures


def test_a_full_gpu_is_the_same_failure_however_much_was_wanted() -> None:
    found = diagnose(one("OutOfMemoryError", GPU_MEMORY))
    other = diagnose(one("OutOfMemoryError", GPU_MEMORY.replace("22.00 MiB", "3.50 GiB")))
    assert signature(found) == signature(other)


@pytest.mark.parametrize(
    "evidence",
    [
        dead(),
        dead(exit_code=-9),
        dead(NODE_DIED),
        Evidence(nodes_drained=("a",)),
        Evidence(controller=STARTUP),
        Evidence(),
    ],
)
def test_what_says_nothing_about_the_run_has_no_signature(evidence: Evidence) -> None:
    """Three kills by others are no reason to stop trying."""
    assert signature(diagnose(evidence)) is None


texts = st.text(max_size=200) | st.sampled_from(
    [NO_WORD, RAY_MEMORY, GLOO_RESET, NCCL_SOCKET, WATCHDOG, ECC, ""]
)


@given(
    errors=st.lists(
        st.builds(Raised, rank=st.integers(0, 3), type=texts, message=texts, traceback=texts), max_size=3
    ),
    deaths=st.lists(
        st.builds(Died, rank=st.integers(0, 3), said=texts, exit_code=st.none() | st.integers(-300, 300)),
        max_size=3,
    ),
    tail=texts,
    controller=texts,
)
def test_whatever_is_found_something_is_said(
    errors: list[Raised], deaths: list[Died], tail: str, controller: str
) -> None:
    found = diagnose(
        Evidence(raised=tuple(errors), died=tuple(deaths), tails={1: tail}, controller=controller)
    )
    assert re.fullmatch(r"[a-z_]+", found.code)
    assert found.message
    assert signature(found) is None or signature(found)


def test_of_a_text_of_megabytes_only_the_ends_are_looked_through() -> None:
    """An error of 800 kB kept the end of its run waiting for 21 s, one of 40 MB for minutes."""
    middle = "CUDA out of memory"
    told = "a/b/c.py " * 500_000 + middle + "0.5 /x " * 500_000 + "the end"
    evidence = Evidence(
        raised=(raised("ValueError", told, traceback=told),), controller=told, tails={0: told}
    )
    found = diagnose(evidence)
    assert found.code == "loop_failed"
    assert len(found.message) < 1_000
    assert len(found.detail or "") < 30_000
    assert "the end" in (found.detail or "")
    assert len(signature(found) or "") < 1_000
