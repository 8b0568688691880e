"""The command line: exit codes, what goes to stdout and what to stderr, and that no error is a traceback."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from command_line import run
from rich.console import Console
from served import LOOP, TOKEN, Served, app_at_port, scheduler_at

from scheduler.api.base import ReasonDocument
from scheduler.api.health import DatabaseHealth, Health
from scheduler.api.jobs import JobDocument, SavedDocument, StopDocument
from scheduler.api.logs import LogLines
from scheduler.cli import follow as follow_module
from scheduler.cli.errors import exit_code
from scheduler.cli.follow import follow
from scheduler.cli.logs import print_log
from scheduler.cli.views import health_page, job_page, next_step
from scheduler.client import Client
from scheduler.core.model import JobSpec, Phase, Status
from scheduler.errors import NotReady, SchedulerError
from scheduler.server.local_shutdown import Stopped
from scheduler.settings import Settings
from serve_app.app import create_app
from tests.unit.recording_registry import RecordingRegistry, a_repair

ROOT = Path(__file__).resolve().parents[2]
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with scheduler_at(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture(autouse=True)
def _at(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER_URL", served.url)
    monkeypatch.delenv("SCHEDULER_TOKEN", raising=False)


@pytest.fixture
def client(served: Served) -> Client:
    return Client(served.url)


def submitted(*options: str) -> str:
    return run("submit", "--loop", LOOP, "--json", *options).document["job_id"]


# Submit


def test_a_spec_file_is_submitted(tmp_path: Path) -> None:
    """D5: the page says where the job stands and what to do next; options win over the file."""
    path = tmp_path / "job.yaml"
    path.write_text(f"loop: {LOOP}\nname: from-file\nconfig: {{seconds: 0.1, lr: 1e-4}}\n")
    page = run(
        "submit", str(path), "--name", "qa [bold]", "--set", "steps=3", "--set", "resources.num_ranks=2"
    )
    assert page.code == 0
    assert "qa [bold] · loop tests:scripted · 2 ranks at once" in page.out
    job_id = page.out.split()[1]
    spec = run("status", job_id, "--json").document["spec"]
    assert spec["config"] == {"seconds": 0.1, "lr": 1e-4, "steps": 3}
    assert spec["resources"]["num_ranks"] == 2


def test_a_job_may_be_told_after_which_others_it_starts() -> None:
    """S8: by name or by the beginning of an id, as everywhere on the command line."""
    first = submitted("--name", "runs first", "--set", "seconds=60")
    second = submitted(
        "--after", "runs first", "--after", f"{first[:8]}:ended", "--start-after", "2027-01-31T03:00:00Z",
        "--deadline", "2027-01-31T09:00:00Z",
    )  # fmt: skip
    spec = run("status", second, "--json").document["spec"]
    assert spec["after"] == [{"job": first, "on": "completed"}, {"job": first, "on": "ended"}]
    assert spec["start_after"] == "2027-01-31T03:00:00Z"
    assert spec["deadline"] == "2027-01-31T09:00:00Z"
    run("cancel", second, first, "--yes")
    assert run("submit", "--loop", LOOP, "--after", "nobody").code == 3


def test_the_kind_of_node_may_be_said() -> None:
    """S6: as options, or as a field; what is no label is refused in words."""
    options = ("submit", "--loop", LOOP, "--on", "gpu=H100", "--on", "gpu=A100", "--on", "ray.io/zone=a")
    refused = run(*options, "--json")
    assert (
        "no node has gpu=A100 or H100, ray.io/zone=a; there is 1 without gpu and ray.io/zone" in refused.err
    )
    assert "write it as LABEL=VALUE" in run("submit", "--loop", LOOP, "--on", "H100").err
    assert (
        "gpu: 3 is no value of a label" in run("submit", "--loop", LOOP, "--set", "resources.on={gpu: 3}").err
    )
    assert "on" not in run("status", submitted(), "--json").document["spec"]["resources"]


def test_a_spec_may_come_through_a_pipe() -> None:
    assert run("submit", "-", "--json", given=f"loop: {LOOP}\nname: piped\n").document["name"] == "piped"


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--set", "fails=1"), 1)])
@pytest.mark.parametrize("how", ["--wait", "--follow"])
def test_a_waited_for_submit_is_0_only_if_the_job_completed(
    how: str, options: tuple[str, ...], code: int
) -> None:
    """`scheduler submit --wait job.yaml && deploy` must not deploy a failed job."""
    ran = run("submit", "--loop", LOOP, how, "--json", *options)
    assert ran.code == code
    assert ran.document["status"] == ("failed" if code else "completed")


def test_a_wait_that_times_out_is_124_and_still_names_the_job(client: Client) -> None:
    """As `timeout` does; without the id on stdout the script has lost its job."""
    ran = run("submit", "--loop", LOOP, "--set", "seconds=60", "--wait", "--timeout", "0.2", "--json")
    assert ran.code == 124
    job_id = ran.document["job_id"]
    assert json.loads(ran.err)["code"] == "wait_timed_out"
    assert run("wait", job_id, "--timeout", "0.1").code == 124
    client.cancel(job_id)
    assert run("wait", job_id).code == 1


def test_one_key_submits_once() -> None:
    """L1, from a shell script that is run again."""
    key = uuid4().hex
    assert submitted("--idempotency-key", key) == submitted("--idempotency-key", key)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("loop: sft\nprioritty: 1\n", "prioritty: is not a known field; did you mean `priority`?"),
        ("loop: sft\nresources:\n  num_ranks: no\n", "job.yaml, line 3)"),
        ("loop: [\n", "job.yaml, line 2, column 1: is not YAML"),
        ("loop: nope:nope\n", "job.yaml, line 1)"),
        (f"loop: {LOOP}\nconfig:\n  lr: .nan\n", "config.lr: is nan, not a finite number; give one"),
        (f"loop: {LOOP}\nresources:\n  num_ranks: 99\n", "99"),
    ],
)
def test_a_bad_file_is_2_with_field_and_line(tmp_path: Path, text: str, words: str) -> None:
    """Whether this machine or the server found it; stdout stays empty for the pipe that follows."""
    path = tmp_path / "job.yaml"
    path.write_text(text)
    ran = run("submit", str(path))
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert ran.err.startswith("error: the job was not accepted\n")
    assert "next: correct it and submit again" in ran.err


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("submit",), 2, "give a FILE with a spec, or --loop"),
        (("submit", "none.yaml"), 2, "none.yaml: is not there"),
        (("submit", "--loop", LOOP, "--set", "steps"), 2, "KEY=VALUE"),
        (("submit", "--loop", LOOP, "--set", "a=["), 2, "--set a=[, line 1, column 2: is not YAML"),
        (("submit", "--no-such-option"), 2, "No such option"),
        (("frobnicate",), 2, "No such command"),
        (("status",), 2, "Missing argument 'JOB'"),
        (("status", "not-a-job"), 3, "no job has the name 'not-a-job'"),
        (("status", ""), 2, "an empty text names no job"),
        (("status", str(uuid4())), 3, "no job"),
        (("logs", str(uuid4())), 3, "no job"),
        (("wait", str(uuid4())), 3, "no job"),
        (("cancel", str(uuid4())), 3, "`scheduler list`"),
        (("list", "--status", "done"), 2, "the statuses are pending, queued"),
        (("list", "--watch", "--json"), 2, "--json prints one document"),
        (("health", "--url", "localhost"), 4, "is not the address of a scheduler"),
        (("up", "--host", "0.0.0.0"), 2, "SCHEDULER_TOKEN"),
        (("up", "--cluster", "a b"), 2, "SCHEDULER_CLUSTER"),
    ],
)
def test_each_mistake_has_its_exit_code_and_its_words(args: tuple[str, ...], code: int, words: str) -> None:
    """Scripts go by the code, people by the words; neither by a traceback."""
    ran = run(*args)
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err


def test_no_server_is_4_with_the_next_command() -> None:
    """P6: nothing may pretend to have worked."""
    ran = run("list", "--url", NOBODY)
    assert (ran.code, ran.out) == (4, "")
    assert f"no scheduler answers at {NOBODY}" in ran.err
    assert "`scheduler up`" in ran.err


def test_a_token_that_is_missing_is_named(tmp_path: Path) -> None:
    with scheduler_at(tmp_path, token=TOKEN) as guarded:
        ran = run("list", "--url", guarded.url)
    assert (ran.code, ran.out) == (1, "")
    assert "next: set SCHEDULER_TOKEN" in ran.err


def test_what_the_status_forbids_is_5(client: Client) -> None:
    """L4."""
    job_id = submitted("--wait")
    for command in ("force-start", "cancel", "fail", "pause", "resume", "restart", "preempt"):
        ran = run(command, job_id)
        assert (ran.code, ran.out) == (5, ""), command
        assert job_id in ran.err


def test_every_error_in_the_tree_has_a_code_of_its_kind() -> None:
    """A new error class must not exit with 0 or with a code that means something else."""
    kinds = [SchedulerError, *SchedulerError.__subclasses__()]
    codes = {kind.__name__: exit_code(kind("x")) for kind in kinds if kind.__module__ == "scheduler.errors"}
    assert set(codes.values()) <= {1, 2, 3, 4, 5, 124}
    assert {name for name, code in codes.items() if code == 4} == {
        *("RegistryUnavailable", "JournalUnwritable", "RunUnreachable", "ServerUnreachable"),
        *("MirrorUnavailable", "StorageUnavailable"),
    }


# --json


def test_json_is_one_document_and_nothing_else() -> None:
    """`... --json | jq` breaks on a single stray line."""
    job_id = submitted("--set", "seconds=0.05", "--set", "log=hello")
    run("wait", job_id)
    documents = {
        command: run(*command.split(), "--json").document
        for command in (
            *(f"{command} {job_id}" for command in ("status", "wait", "events", "logs", "logs -f")),
            *("list", "list --limit 1 --status completed", "health", "loops"),
            *("reconcile", "reconcile --dry-run", "repairs"),
        )
    }
    assert documents[f"status {job_id}"]["status"] == "completed"
    assert documents[f"logs {job_id}"] == {
        "job_id": job_id,
        "rank": 0,
        "attempt": 1,
        "text": "attempt 1\nhello",
        "ended": True,
    }
    assert len(documents["list --limit 1 --status completed"]["jobs"]) == 1
    assert documents["list"]["verified"] is True
    assert documents["reconcile --dry-run"]["dry_run"] is True
    assert documents["repairs"] == {"repairs": []}
    assert documents["health"]["status"] == "healthy"


def test_actions_answer_in_json_too(client: Client) -> None:
    job_id = submitted("--set", "seconds=60", "--set", "resources.num_ranks=4")
    waiting = submitted("--set", "resources.num_ranks=4")
    assert run("fail", waiting, "--json").document["status"] == "failed"
    answer = run("force-start", waiting, "--json").document
    assert (answer["previous_status"], answer["success"]) == ("failed", True)
    assert run("cancel", waiting, "--json").document["status"] == "cancelled"
    assert run("resume", waiting, "--json").document["status"] == "queued"
    assert run("pause", job_id, "--json").document["reason"]["code"] == "pause_asked"
    for each in (waiting, job_id):
        client.cancel(each)


def test_errors_are_json_on_stderr_when_asked_for() -> None:
    """stdout stays empty, so that nobody takes a problem for a job."""
    ran = run("submit", "--loop", LOOP, "--set", "prio=1", "--set", "resources.gpus=1", "--json")
    assert (ran.code, ran.out) == (2, "")
    problem = json.loads(ran.err)
    assert problem["code"] == "invalid_spec"
    assert problem["errors"][0]["field"] == "resources.gpus"


# Pages for people


def test_a_waiting_job_says_why_and_what_next(client: Client) -> None:
    """L5: the reason with numbers, and the command that changes something."""
    blocker = submitted("--set", "seconds=60", "--set", "resources.num_ranks=3")
    waiting = submitted("--set", "resources.num_ranks=4")
    _until(lambda: "4 ranks" in run("status", waiting).out.split("\nwhy ")[1].split("\n")[0])
    page = run("status", waiting).out
    assert "queued, position 1" in page
    assert f"`scheduler cancel {waiting}`" in page
    assert "proof" in page
    for job_id in (waiting, blocker):  # or it would start, and be over before it is cancelled
        client.cancel(job_id)


def test_lists_in_a_pipe_have_a_line_for_each_job_and_nothing_shortened(client: Client) -> None:
    """`scheduler list | cut -f1 | xargs ...` must get whole ids."""
    name = "n" * 60
    ids = [submitted("--name", name, "--set", "project=pipe") for _ in range(3)]
    rows = [line.split("\t") for line in run("list", "--project", "pipe").out.splitlines()]
    assert [row[0] for row in rows] == ids[::-1]
    assert {row[1] for row in rows} == {name}
    nothing = run("list", "--project", "no such project")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "no jobs match\n")


def test_the_logs_of_all_ranks_are_followed_each_line_with_its_rank(client: Client) -> None:
    """L8: which rank said it decides where to look; what else happens must not be mixed into `> file`."""
    settings = ("seconds=0.3", "fails=1", "max_failures=1", "resources.num_ranks=2", "log=hello")
    job_id = submitted(*(part for value in settings for part in ("--set", value)))
    ran = run("logs", job_id, "-f", "--rank", "all")
    assert ran.code == 0
    assert sorted(ran.out.splitlines()) == sorted(
        f"[{rank}] {text}"
        for attempt in (1, 2)
        for rank, text in ((0, f"attempt {attempt}"), (0, "hello"), (1, f"attempt {attempt}"))
    )
    assert "-- attempt 1 is over: ValueError: a bad batch\n" in ran.err
    assert ran.err.endswith("-- the job is completed: every rank returned\n")
    assert (
        run("logs", job_id, "--rank", "all", "--attempt", "1").out
        == "[0] attempt 1\n[0] hello\n[1] attempt 1\n"
    )
    said = run("logs", job_id, "--rank", "all", "-f", "--attempt", "1", "--json").document
    assert said["text"] == {"0": "attempt 1\nhello", "1": "attempt 1\n"}
    assert (said["attempt"], said["ended"]) == (1, True)
    assert run("logs", job_id, "-f", "--rank", "2").code == 2


def test_ctrl_c_leaves_a_followed_log_in_a_sentence(served: Served, client: Client) -> None:
    """The job is not to be ended by whoever only looked, and a traceback would look as if it were."""
    job_id = submitted("--set", "seconds=60")
    command = [sys.executable, "-m", "scheduler.cli", "logs", "-f", job_id, "--url", served.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "attempt 1\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith(f"job {job_id} goes on;")
    assert "Traceback" not in said
    client.cancel(job_id)


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ([(0, "a\nb"), (0, "c\n")], "[0] a\n[0] bc\n"),
        ([(0, "a"), (1, "b\n"), (0, "c\n")], "[0] a\n[1] b\n[0] c\n"),
        ([(0, "a\n\nb\n")], "[0] a\n[0] \n[0] b\n"),
        ([(0, "a"), (0, ""), (0, "b\n")], "[0] ab\n"),
    ],
)
def test_a_line_that_comes_in_pieces_gets_its_rank_once(
    pieces: list[tuple[int, str]], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [LogLines(attempt=1, rank=rank, text=text, offset=0, next_offset=0) for rank, text in pieces]
    print_log(events, with_ranks=True)
    assert capsys.readouterr().out == shown


def test_logs_events_and_loops_are_printed() -> None:
    job_id = submitted("--wait", "--set", "log=hello")
    assert run("logs", job_id, "-f").out == "attempt 1\nhello"
    assert run("logs", job_id, "--rank", "1", "--attempt", "1").out == "attempt 1\n"
    assert run("logs", job_id, "--tail-bytes", "3").out == "llo"
    assert run("logs", job_id, "--rank", "first").code == 2
    history = run("events", job_id).out.splitlines()
    assert "new -> queued" in history[0]
    assert "running -> completed" in history[-1]
    assert "sft: " in run("loops").out
    assert "learning_rate" in run("loops").out
    assert "healthy" in run("health").out
    assert run("--version").out.strip()


def a_document(status: Status, **fields: Any) -> JobDocument:
    now = datetime.now(UTC)
    likely: dict[str, Any] = {
        "job_id": "0b2f1c9e-2a55-4d0c-8c4f-6a1f1a1c0001",
        "name": "job",
        "status": status,
        "reason": ReasonDocument(code="test", message="because"),
        "attempt": 1,
        "created_at": now - timedelta(seconds=90),
        "updated_at": now,
        "verified_at": now,
        "evidence": "step 3, 1 s ago",
        "version": 1,
        "spec": JobSpec(loop=LOOP),
    }
    return JobDocument(**(likely | fields))


@pytest.mark.parametrize("status", list(Status))
def test_every_status_has_a_next_step(status: Status) -> None:
    """P7: no state may leave its owner without a way on."""
    assert next_step(a_document(status))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (a_document(Status.QUEUED, reason=ReasonDocument(code="held", message="held")), "scheduler resume"),
        (
            a_document(Status.RUNNING, stop=StopDocument(kind="pause", by="ana", asked_at=datetime.now(UTC))),
            "is being stopped",
        ),
        (a_document(Status.FAILED), "scheduler restart"),
        (
            a_document(Status.FAILED, last_checkpoint=SavedDocument(checkpoint="1.2", at=datetime.now(UTC))),
            "scheduler resume",
        ),
    ],
)
def test_the_next_step_is_one_that_helps(document: JobDocument, words: str) -> None:
    """To wait for a job that is held is to wait for ever; one without checkpoints cannot be resumed from the last."""
    assert words in next_step(document)


def test_proof_that_is_old_is_said_to_be_old() -> None:
    """P1: `running` without proof of life must not look like `running` with it."""
    now = datetime.now(UTC)
    fresh = dict(job_page(a_document(Status.RUNNING), now))["proof"]
    old = dict(job_page(a_document(Status.RUNNING, verified_at=now - timedelta(seconds=75)), now))["proof"]
    never = dict(job_page(a_document(Status.RUNNING, verified_at=None), now))["proof"]
    assert "checked 0 s ago" in str(fresh)
    assert "not verified for 1 min 15 s" in str(old)
    assert str(never) == "step 3, 1 s ago"


def test_what_users_write_cannot_steer_the_terminal() -> None:
    """A job name with escape codes could hide other jobs or fake a status."""
    evil = a_document(
        Status.FAILED, name="a\x1b[2Jb\rc\nd", reason=ReasonDocument(code="x", message="\x1b]0;t\x07")
    )
    page = "".join(str(value) for _, value in job_page(evil))
    assert not {"\x1b", "\r", "\x07", "\n"} & set(page)


# What is in doubt


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingRegistry]:
    """A scheduler that says what the test wants it to."""
    registry = RecordingRegistry()
    with app_at_port(create_app(registry, Settings())) as url:
        monkeypatch.setenv("SCHEDULER_URL", url)
        yield registry


STALE: dict[str, Any] = {"stale": True, "database_status": "running", "registry_status": "failed"}
UNKNOWN: dict[str, Any] = {"stale": True, "database_status": "running", "verified": False}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"status": Status.FAILED, **STALE}, "stale: the database says running"),
        ({"status": Status.FAILED, "stale": True, "registry_status": "failed"}, "stale: no row"),
        ({"status": Status.RUNNING, **UNKNOWN}, "stale: the registry does not know it"),
        ({"status": Status.RUNNING, "verified": False}, "not verified"),
    ],
)
def test_a_state_in_doubt_is_marked_wherever_it_is_shown(
    fields: dict[str, Any], words: str, told: RecordingRegistry
) -> None:
    """L6: in the list and on the page of the job, with whose word it is; the third column stays the status."""
    job = a_document(**fields)
    told.known[job.job_id] = job
    row = run("list").out.rstrip("\n").split("\t")
    assert row[2] == job.status
    assert row[5] == f"{words} · because"
    assert f"{job.status} ({words})" in run("status", job.job_id).out


def test_an_unverified_state_is_never_called_checked() -> None:
    """P1: the time of the row's last write is no proof of life."""
    job = a_document(Status.RUNNING, verified=False, evidence="as the database has it, written 3 s ago")
    assert str(dict(job_page(job))["proof"]) == "as the database has it, written 3 s ago"


def test_what_could_not_be_verified_is_said_below_the_list(told: RecordingRegistry) -> None:
    """L6: on stderr, so that a pipe gets rows alone; and in the document that a program reads."""
    job = a_document(Status.RUNNING, verified=False)
    told.known[job.job_id] = job
    told.says_of_pages = {"verified": False, "note": "not verified, because the registry is away"}
    page = run("list")
    assert page.err == "note: not verified, because the registry is away\n"
    document = run("list", "--json").document
    assert (document["verified"], document["notes"]) == (
        False,
        ["not verified, because the registry is away"],
    )


def test_repairs_are_told_with_what_was_seen_and_why(told: RecordingRegistry) -> None:
    """L10: a state that the system changed must be explained to whoever finds it changed."""
    told.put_right = [a_repair()]
    line = run("repairs").out
    for seen in (
        a_repair().job_id,
        "marked it as failed: stale",
        "640 s",
        "running, version 3",
        "no run of it",
    ):
        assert seen in line
    done, would_be = run("reconcile"), run("reconcile", "--dry-run")
    assert done.out == would_be.out == line
    assert done.err == "1 thing was repaired; 12 active rows of the database were compared\n"
    assert would_be.err == "1 thing would be repaired; 12 active rows of the database were compared\n"
    told.put_right = []
    assert run("repairs").err == "nothing had to be repaired\n"
    assert run("reconcile").err.startswith("nothing to repair;")


def test_attempts_and_checkpoints_are_lines(told: RecordingRegistry) -> None:
    """L8: what was lost, and from where a job can go on, is read at a glance."""
    job_id = "6f1c2a4e-0000-4000-8000-000000000001"
    told.known[job_id] = a_document(Status.FAILED)
    line = run("attempts", job_id).out
    for seen in ("anew", "to step 30", "10 steps lost", "lost: rank 0 was killed"):
        assert seen in line
    line = run("checkpoints", job_id).out
    assert line.startswith("> 1.2 ")
    assert all(seen in line for seen in ("step 20", "loss 0.25", "4.1 MB", "saved in 0.5 s"))
    assert run("checkpoints", job_id, "--json").document["checkpoints"][0]["num_files"] == 3


def test_a_checkpoint_that_is_not_there_is_3(client: Client) -> None:
    job_id = submitted("--wait")
    ran = run("resume", job_id, "--checkpoint", "9.9")
    assert (ran.code, ran.out) == (3, "")
    assert "no complete checkpoint '9.9'" in ran.err


@pytest.mark.parametrize(
    ("database", "unmirrored", "words"),
    [
        (DatabaseHealth(note="no Supabase is set"), 0, "no Supabase is set"),
        (DatabaseHealth(configured=True, ok=True, note="fine"), 0, "answers, every write is mirrored; fine"),
        (
            DatabaseHealth(configured=True, ok=False, last_error="connection refused"),
            1200,
            "does not answer, 1,200 writes not mirrored yet, last error: connection refused",
        ),
    ],
)
def test_health_tells_how_the_database_is(database: DatabaseHealth, unmirrored: int, words: str) -> None:
    """L9, P6: writes that pile up must be seen before somebody misses them."""
    health = Health(status="degraded", version="1", database=database, unmirrored_writes=unmirrored)
    assert dict(health_page(health))["database"] == words


def test_following_says_when_the_registry_is_away() -> None:
    """L6: a line that looks as certain as those before it would be believed."""
    out = Console(file=io.StringIO())
    running = a_document(Status.RUNNING, phase=Phase.TRAINING)
    follow(Scripted(running, running.model_copy(update={"verified": False}), running), out)  # type: ignore[arg-type]
    lines = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert ["not verified" in line for line in lines] == [False, True, False]


# Follow


def test_following_without_a_terminal_prints_plain_lines(client: Client) -> None:
    """In a CI log a progress bar is a wall of escape codes."""
    progress = {"step": 12, "total_steps": 60, "loss": 2.3104, "tokens_per_s": 140.2}
    job = client.submit(loop=LOOP, config={"seconds": 2, "progress": progress})
    out = io.StringIO()
    assert follow(job, Console(file=out)).status is Status.COMPLETED
    assert "\x1b" not in out.getvalue()
    assert "step 12/60 · loss 2.31 · 140 tokens/s" in out.getvalue()
    assert "running (training, attempt 1)" in out.getvalue()
    assert "completed: every rank returned" in out.getvalue().splitlines()[-1]


class Scripted:
    """A handle whose documents are given."""

    def __init__(self, *documents: JobDocument) -> None:
        self.documents = documents

    def wait(self, timeout_s: float | None = None, *, poll_s: float, on_update: Any) -> JobDocument:
        for document in self.documents:
            on_update(document)
        return self.documents[-1]


def test_the_time_left_comes_from_the_steps_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts anew with each attempt: the steps of an earlier one were made at another time."""
    now_s = 0.0
    monkeypatch.setattr(follow_module, "monotonic", lambda: now_s)
    pace, etas = follow_module._Pace(), []
    for attempt, step, at_s in ((1, 10, 0), (1, 20, 20), (2, 20, 500), (2, 30, 530)):
        now_s = at_s
        progress = {"step": step, "total_steps": 50}
        etas.append(pace.eta_s(a_document(Status.RUNNING, attempt=attempt, progress=progress)))
    assert etas == [None, 60.0, None, 60.0]


@pytest.mark.parametrize(
    "progress",
    [
        None,
        {},
        {"step": "x"},
        {"step": float("nan"), "loss": float("inf")},
        {"step": 5, "total_steps": 0},
        {"step": True},
    ],
)
@pytest.mark.parametrize("terminal", [True, False])
def test_odd_progress_does_not_break_the_view(progress: Any, terminal: bool) -> None:
    """A loop of one's own may report anything."""
    job = a_document(Status.RUNNING, phase=Phase.TRAINING, progress=progress)
    out = Console(file=io.StringIO(), force_terminal=terminal)
    assert follow(Scripted(job, job), out) is job  # type: ignore[arg-type]


# The real program


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "scheduler.cli", *args]


def test_the_program_exits_as_its_help_says() -> None:
    """The same through a real process: epilog, exit code, no traceback, nothing on stdout."""
    help_page = subprocess.run(command("--help"), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for line in ("0    ok", "3    no such job", "124  the wait timed out"):
        assert line in help_page
    lost = subprocess.run(
        command("status", str(uuid4())), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (lost.returncode, lost.stdout) == (3, "")
    assert lost.stderr.startswith("error: no job")


def test_ctrl_c_leaves_the_job_and_says_so(client: Client) -> None:
    """Whoever stops watching must not believe that he stopped the job."""
    job = client.submit(loop=LOOP, config={"seconds": 60})
    watcher = subprocess.Popen(command("wait", job.id, "-f"), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert watcher.stderr is not None
    watcher.stderr.readline()
    watcher.send_signal(2)
    _, err = watcher.communicate(timeout=20)
    assert watcher.returncode == 130
    assert f"job {job.id} goes on" in err
    assert "Traceback" not in err
    assert job.cancel().status is not Status.CANCELLED


def test_a_terminal_of_few_letters_gets_the_page_all_the_same() -> None:
    """A job named in Greek must not end a cron job's `status` with a UnicodeEncodeError."""
    job_id = submitted("--name", "μάθηση")
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        command("status", job_id), cwd=ROOT, capture_output=True, text=True, check=True, env=env
    )
    assert job_id in done.stdout


def test_a_reader_that_closes_the_pipe_ends_the_list_quietly() -> None:
    """`scheduler list | head -1`."""
    submitted()
    shell = f"{' '.join(command('list'))} | head -c 1"
    done = subprocess.run(shell, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_on_a_terminal_there_is_a_bar_a_table_and_colour(client: Client) -> None:
    """What a newcomer sees; through a pseudo-terminal, because pipes take the other path."""
    progress = {"step": 30, "total_steps": 60, "loss": 1.5, "tokens_per_s": 99}
    job = client.submit(loop=LOOP, name="seen", config={"seconds": 60, "progress": progress})
    numbers = "step 30/60 · loss 1.5 · 99 tokens/s"
    code, seen = on_a_terminal(*command("wait", job.id, "--follow"), when=numbers, then=job.cancel)
    assert code == 1
    assert "━" in seen
    assert "\x1b[?25h" in seen[seen.rindex("━") :]  # the cursor is shown again
    assert numbers in seen[seen.rindex("━") :]  # the last numbers stay when the bar goes
    assert "cancelled" in seen
    code, table = on_a_terminal(*command("list", "--limit", "1"))
    assert code == 0
    assert "JOB" in table
    assert job.id in table
    assert "\x1b[35mcancelled" in table


def on_a_terminal(*args: str, when: str = "", then: Any = None) -> tuple[int, str]:
    """Exit code and everything shown; *then* is called when *when* has been shown."""
    master, slave = pty.openpty()
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "140", "LINES": "40"}
    process = subprocess.Popen(args, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=ROOT)
    os.close(slave)
    seen, until_s = b"", time.monotonic() + 50
    while time.monotonic() < until_s and select.select([master], [], [], 50)[0]:
        try:
            seen += os.read(master, 65536)
        except OSError:  # Linux says EIO when the other end is closed
            break
        if then and when.encode() in seen:
            then = then() and None
    os.close(master)
    return process.wait(10), seen.decode()


# up, down, doctor


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = ModuleType(f"scheduler.server.{name}")
    module.__dict__.update(members)
    monkeypatch.setitem(sys.modules, f"scheduler.server.{name}", module)
    monkeypatch.setattr(f"scheduler.server.{name}", module, raising=False)


@pytest.mark.parametrize("name", ["up", "down", "doctor"])
def test_missing_server_packages_are_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """R8: the client alone is a normal installation; the remedy is one command."""
    for module in ("local_cluster", "local_shutdown", "preflight"):
        monkeypatch.setitem(sys.modules, f"scheduler.server.{module}", None)
        monkeypatch.delattr(f"scheduler.server.{module}", raising=False)
    ran = run(name)
    assert (ran.code, ran.out) == (1, "")
    assert "pip install 'training-scheduler[server]'" in ran.err


def test_up_says_where_everything_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options reach the settings; `--block` waits after the page, or nobody would see it."""
    info = SimpleNamespace(
        api_url="http://x",
        monitor_url="http://x/m",
        dashboard_url="http://x/d",
        metrics_url="http://x/p",
        state_dir="/s",
    )
    asked: list[Any] = []

    def up(settings: Any, *, replace: bool, say: Any) -> Any:
        asked.append((settings.port, settings.cluster, replace))
        say("the keeper was gone")
        return info

    stand_in(monkeypatch, "local_cluster", up=up, wait_for_end=asked.append)
    page = run("up", "--port", "8123", "--cluster", "two", "--block", "--replace")
    assert asked == [(8123, "two", True), info]
    for where in ("http://x/m", "http://x/d", "`scheduler down`"):
        assert where in page.out
    assert page.err == "the keeper was gone\n"


@pytest.mark.parametrize(
    ("running", "unsaved", "words"),
    [
        (0, 0, "stopped\n"),
        (2, 0, "stopped, and 2 running jobs with it, all saved first; `scheduler up`"),
        (1, 1, "stopped, and 1 running job with it, 1 of them without saving; `scheduler up`"),
        (None, 0, "is not known"),
    ],
)
def test_down_says_what_became_of_the_runs(
    monkeypatch: pytest.MonkeyPatch, running: int | None, unsaved: int, words: str
) -> None:
    """B3: they are saved first, unless it was told otherwise."""
    asked: list[bool] = []

    def down(settings: Any, *, save: bool, say: Any) -> Any:
        asked.append(save)
        return Stopped(running=running, unsaved=unsaved)

    stand_in(monkeypatch, "local_shutdown", down=down)
    assert words in run("down").out
    assert run("down", "--json", "--now").document == {"was_up": True, "running": running, "unsaved": unsaved}
    run("down", "--pause")
    assert asked == [True, False, True]


def test_up_that_cannot_start_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """R8."""

    def up(settings: Any, *, replace: bool, say: Any) -> Any:
        raise NotReady(
            "the scheduler cannot start:\n  storage: /x is read-only\n    -> set SCHEDULER_STORAGE_PATH"
        )

    stand_in(monkeypatch, "local_cluster", up=up, wait_for_end=None)
    ran = run("up")
    assert (ran.code, ran.out) == (1, "")
    assert "-> set SCHEDULER_STORAGE_PATH" in ran.err


def test_doctor_names_what_is_missing_and_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """R8: and its exit code lets an installer stop."""
    checks = [
        SimpleNamespace(name="Python", ok=True, detail="3.11", remedy=""),
        SimpleNamespace(name="storage", ok=False, detail="/x cannot be written", remedy="chmod u+w /x"),
    ]
    stand_in(monkeypatch, "preflight", run=lambda settings, ours_is_up: checks)
    stand_in(monkeypatch, "local_cluster", read_info=lambda settings: None)
    ran = run("doctor")
    assert ran.code == 1
    assert "ok        Python: 3.11" in ran.out
    assert "MISSING   storage: /x cannot be written" in ran.out
    assert "-> chmod u+w /x" in ran.out
    checks.pop()
    assert run("doctor").code == 0


def _until(seen: Any) -> None:
    until_s = time.monotonic() + 10
    while not seen():
        assert time.monotonic() < until_s
        time.sleep(0.1)
