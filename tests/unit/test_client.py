"""The Python client against a whole scheduler over HTTP; only the runs are scripted."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from served import LOOP, TOKEN, Served, app_at_port, scheduler_at

import scheduler
from scheduler import errors
from scheduler.api.jobs import JobDocument
from scheduler.client import AsyncClient, Client, flows
from scheduler.client.calls import Call, result_of, status
from scheduler.client.flows import Pause
from scheduler.client.spec_file import load_spec
from scheduler.core.model import Gang, JobSpec, Status
from scheduler.errors import (
    InvalidRequest,
    InvalidSpec,
    JobNotCompleted,
    JobNotFound,
    MirrorRefused,
    NotAllowed,
    RegistryUnavailable,
    SchedulerError,
    ServerUnreachable,
    Unauthorized,
    WaitTimedOut,
)
from scheduler.settings import Settings
from serve_app.app import create_app
from tests.unit.recording_registry import JOB_ID, RecordingRegistry, a_document, a_repair

WIDE = Gang(num_ranks=4)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with scheduler_at(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.url, user="ann") as client:
        yield client


def names(client: Client, name: str) -> list[str]:
    return [job.job_id for job in client.list_jobs() if job.name == name]


# Submit


def test_a_job_is_submitted_watched_and_its_result_fetched(client: Client) -> None:
    """D5, L1: the path that the README shows."""
    job = client.submit(loop=LOOP, name="qa", config={"seconds": 0.1}, labels={"team": "a"})
    assert job.last is not None
    assert job.last.status in (Status.QUEUED, Status.RUNNING)
    assert job.last.spec.user == "ann"
    seen: list[JobDocument] = []
    assert job.wait(10, on_update=seen.append).status is Status.COMPLETED
    assert seen[-1].status is Status.COMPLETED
    assert len(seen) == len({document.model_dump_json() for document in seen})
    assert job.result(10).metrics == {"loss": 0.5}
    assert client.get(job.id).last == job.last


@pytest.mark.parametrize(
    "spec",
    [
        JobSpec(loop=LOOP, name="one"),
        {"loop": LOOP, "name": "one"},
        {"loop": LOOP, "name": "one", "resources": {"num_ranks": 1}},
        {"loop": LOOP, "name": "one", "resources": Gang()},
    ],
)
def test_a_spec_may_be_given_in_any_form_and_keywords_win(client: Client, spec: Any) -> None:
    """Else a notebook and a script would need two clients."""
    job = client.submit(spec, name="two", config={"path": Path("/data/x")})
    assert job.last is not None
    assert (job.last.spec.name, job.last.spec.config) == ("two", {"path": "/data/x"})


def test_a_lost_answer_does_not_double_the_job(served: Served, client: Client) -> None:
    """L1: the server accepts the job and the connection drops before its answer: asking again is safe."""
    client.health()
    served.wire.lose_answers(2)
    job = client.submit(loop=LOOP, name="once")
    assert served.wire.lost == 2
    assert names(client, "once") == [job.id]


def test_a_server_that_restarts_is_asked_again(served: Served, client: Client) -> None:
    """A submit in the middle of a restart must neither fail nor be there twice."""
    client.health()
    served.unready.times = 2
    job = client.submit(loop=LOOP, name="patient")
    assert served.unready.times == 0
    served.call(served.wire.cut())
    back = threading.Timer(0.5, lambda: served.call(served.wire.open()))
    back.start()
    again = client.submit(loop=LOOP, name="patient")
    back.join()
    assert sorted(names(client, "patient")) == sorted([job.id, again.id])


def test_one_key_makes_one_job(client: Client) -> None:
    """L1: a script that is run again must not train again."""
    key = uuid4().hex
    first = client.submit(loop=LOOP, name="keyed", idempotency_key=key)
    assert client.submit(loop=LOOP, name="keyed", idempotency_key=key).id == first.id
    assert client.submit(loop=LOOP, name="keyed").id != first.id
    with pytest.raises(InvalidRequest, match="idempotency_key"):
        client.submit(loop=LOOP, idempotency_key="two\r\nlines")


def test_a_batch_is_taken_whole_or_not_at_all(served: Served, client: Client) -> None:
    """Half a batch would be submitted again by hand, and its first half would run twice."""
    jobs = client.submit_batch([{"loop": LOOP, "name": "batch"}, JobSpec(loop=LOOP, name="batch")])
    assert sorted(job.id for job in jobs) == sorted(names(client, "batch"))
    with pytest.raises(InvalidSpec) as refused:
        client.submit_batch([{"loop": LOOP, "name": "half"}, {"loop": "nope:nope", "name": "half"}])
    assert [problem.field for problem in refused.value.problems] == ["jobs.1.loop"]
    assert names(client, "half") == []


def test_a_batch_whose_answer_is_lost_is_not_sent_again(served: Served, client: Client) -> None:
    """It has no key, so a second one would double every job of it; the error says where to look."""
    client.health()
    served.wire.lose_answers(1)
    with pytest.raises(ServerUnreachable, match=r"may have been accepted.*scheduler list"):
        client.submit_batch([{"loop": LOOP, "name": "doubtful"}])
    assert len(names(client, "doubtful")) == 1


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({}, "loop", "is required"),
        ({"loop": LOOP, "prioritty": 1}, "prioritty", "did you mean `priority`"),
        ({"loop": LOOP, "resources": {"num_ranks": -1}}, "resources.num_ranks", "greater than or equal to 1"),
        ({"loop": LOOP, "resources": {"gpus": 1}}, "resources.gpus", "gpus_per_rank"),
        ({"loop": LOOP, "config": {"lr": float("nan")}}, "config.lr", "not a finite number"),
        ({"loop": LOOP, "config": {"a": [{"b": object()}]}}, "config.a.0.b", "JSON cannot carry"),
        ({"loop": LOOP, "config": {"a": {1: 2}}}, "config.a", "not text"),
        ({"loop": "sfd"}, "loop", "sft"),
        ({"loop": LOOP, "resources": {"num_ranks": 400}}, "resources", "400"),
    ],
)
def test_a_bad_spec_is_refused_by_field(client: Client, fields: Any, field: str, words: str) -> None:
    """The same error class and the same shape, whether this machine or the server found it."""
    with pytest.raises(InvalidSpec) as refused:
        client.submit(fields)
    [problem] = refused.value.problems
    assert problem.field.startswith(field)
    assert words in problem.message


def test_who_asks_is_in_the_history(client: Client, served: Served) -> None:
    """An event that says `api` for everyone answers no question."""
    job = client.submit(loop=LOOP, config={"seconds": 60})
    with Client(served.url, user="bjørn") as other:
        other.cancel(job.id)
    assert job.wait(10).status is Status.CANCELLED
    assert "bjørn" in {event.by for event in client.events(job.id).events}
    assert client.events(job.id).events[0].kind == "Submitted"


# Looking and acting


def test_lists_turn_their_pages_by_themselves(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """L6: a caller who sees only the first page believes that the rest does not exist."""
    monkeypatch.setattr("scheduler.client.flows.PAGE", 3)
    ids = {job.id for job in client.submit_batch([{"loop": LOOP, "project": "many"}] * 8)}
    assert {job.job_id for job in client.list_jobs(project="many")} == ids
    assert len(list(client.list_jobs(project="many", limit=4))) == 4
    assert [len(page.jobs) for page in client.job_pages(project="many", limit=7)] == [3, 3, 1]
    for job_id in ids:
        client.wait(job_id, 10)
    assert list(client.list_jobs(project="many", status=[Status.QUEUED, "failed"])) == []
    assert len(list(client.list_jobs(project="many", status="completed"))) == 8
    with pytest.raises(InvalidRequest, match="the statuses are"):
        list(client.list_jobs(status="done"))


def test_actions_are_refused_in_words_and_by_class(client: Client) -> None:
    """L3, L4: `except scheduler.NotAllowed` must work on the other side of HTTP."""
    job = client.submit(loop=LOOP, config={"seconds": 60}, resources=WIDE)
    waits = client.submit(loop=LOOP, resources=WIDE)
    assert client.mark_failed(waits.id).status is Status.FAILED
    assert client.force_start(waits.id).previous_status is Status.FAILED
    assert waits.cancel().status is Status.CANCELLED
    with pytest.raises(NotAllowed, match="pause and resume"):
        _until_running(job).force_start()
    job.cancel()
    assert job.wait(10).status is Status.CANCELLED
    with pytest.raises(JobNotCompleted, match="cancelled"):
        job.result()
    with pytest.raises(JobNotFound, match="scheduler list"):
        client.get(str(uuid4()))
    for malformed in ("x", "../health", "", "..", "a b/ü"):
        with pytest.raises(InvalidRequest, match="job id"):
            client.status(malformed)


def test_a_job_is_paused_and_resumed(client: Client) -> None:
    """L7: a paused job holds nothing, and goes on when it is told to."""
    job = client.submit(loop=LOOP, config={"seconds": 60})
    _until_running(job).pause()
    _until(lambda: job.status().status is Status.PAUSED)
    assert job.resume().status is Status.QUEUED
    assert _until_running(job).status().attempt == 2
    assert [run.ending for run in job.attempts().attempts] == ["stopped", None]
    job.preempt()
    _until(lambda: job.status().attempt == 3)
    assert job.checkpoints().checkpoints == []
    job.cancel()
    _until(lambda: job.status().status is Status.CANCELLED)
    assert job.restart().reason.code == "restarted"
    job.cancel()


def test_a_reconcile_without_a_database_finds_nothing(client: Client) -> None:
    """L10, R7: it says what it compared, so that `nothing to do` is not taken for `all is well`."""
    answer = client.reconcile(dry_run=True)
    assert (answer.dry_run, answer.repairs, answer.database) == (True, [], "not configured")
    assert list(client.repairs()) == []


def test_repairs_turn_their_pages_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """L10: whoever looks for what was repaired last week must not stop at the first page."""
    monkeypatch.setattr(flows, "PAGE", 2)
    registry = RecordingRegistry()
    registry.put_right = [a_repair(why=f"reason {number}") for number in range(5)]
    with app_at_port(create_app(registry, Settings())) as url, Client(url) as client:
        assert list(client.repairs()) == registry.put_right
        assert list(client.repairs(limit=3)) == registry.put_right[:3]
        assert client.reconcile().repairs == registry.put_right


def test_a_database_that_refuses_is_told_at_once() -> None:
    """R8: asking again for half a minute would look like a slow scheduler, not like a wrong key."""
    registry = RecordingRegistry()
    registry.refuses = MirrorRefused("the key is not that of service_role; set SCHEDULER_SUPABASE_KEY")
    told = pytest.raises(MirrorRefused, match="SCHEDULER_SUPABASE_KEY")
    with app_at_port(create_app(registry, Settings())) as url, Client(url) as client, told:
        client.reconcile()
    assert registry.calls == [("reconcile", False)]


def _told(**changes: Any) -> httpx.Response:
    return httpx.Response(200, content=a_document(**changes).model_dump_json())


def _asking(call: Call[Any]) -> Any:
    answer = yield call
    return result_of(call, answer, "http://x")


def test_an_end_that_nobody_verified_does_not_end_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """P1, L6: a row that says `completed` while the registry is away may have been written by anybody."""
    now_s = 0.0
    monkeypatch.setattr(flows, "monotonic", lambda: now_s)
    claimed = {"status": Status.COMPLETED, "verified": False, "evidence": "as the database has it"}
    wait = flows.waiting(_asking, JOB_ID)
    next(wait)
    assert isinstance(wait.send(_told(**claimed)), Pause)
    next(wait)
    assert isinstance(wait.send(_told(status=Status.RUNNING)), Pause)
    next(wait)
    now_s = 119.0
    assert isinstance(wait.send(_told(**claimed)), Pause)
    next(wait)
    now_s = 121.0
    with pytest.raises(RegistryUnavailable, match="could not be verified for 120 s: as the database has it"):
        wait.send(_told(**claimed))
    wait = flows.waiting(_asking, JOB_ID)
    next(wait)
    with pytest.raises(StopIteration) as ended:
        wait.send(_told(status=Status.COMPLETED))
    assert ended.value.value.verified


def test_a_wait_that_times_out_leaves_the_job_alone(client: Client) -> None:
    """A `TimeoutError` too, so that generic code can catch it."""
    job = client.submit(loop=LOOP, config={"seconds": 60})
    with pytest.raises(TimeoutError, match="it goes on") as late:
        job.wait(0.2)
    assert isinstance(late.value, WaitTimedOut)
    assert job.last is not None
    assert job.cancel().status in (Status.RUNNING, Status.QUEUED, Status.CANCELLED)


def test_a_wait_sits_out_a_restart_of_the_server(served: Served, client: Client) -> None:
    """R1: the run goes on, so whoever waits for it must not be told otherwise."""
    impatient = Client(served.url, retry_s=0.1)
    job = impatient.submit(loop=LOOP, config={"seconds": 1.0})
    served.call(served.wire.cut())
    back = threading.Timer(1.0, lambda: served.call(served.wire.open()))
    back.start()
    assert job.wait(20).status is Status.COMPLETED
    back.join()


def test_logs_are_read_whole_from_the_end_and_as_they_grow(client: Client) -> None:
    """A follower that misses the retry shows the log of a run that is long over."""
    job = client.submit(
        loop=LOOP, config={"seconds": 1, "fails": 1, "log": "x" * 70_000 + "\nend\n"}, max_failures=1
    )
    followed = "".join(job.logs(follow=True))
    assert followed.count("end\n") == 2
    assert followed.index("attempt 1") < followed.index("attempt 2")
    assert len("".join(job.logs(attempt=1))) == len("attempt 1\n") + 70_000 + 5
    assert "".join(job.logs(attempt=2, tail_bytes=4)) == "end\n"
    assert "".join(job.logs(rank=3)) == "attempt 2\n"
    assert job.wait().attempt == 2


def test_following_a_job_that_never_starts_ends_with_it(client: Client) -> None:
    """Else `logs -f` of a withdrawn job would hang for ever."""
    blocker = client.submit(loop=LOOP, config={"seconds": 60}, resources=WIDE)
    job = client.submit(loop=LOOP, resources=WIDE)
    threading.Timer(0.3, job.cancel).start()
    assert list(job.logs(follow=True)) == []
    blocker.cancel()


def test_loops_and_health_are_documents(client: Client) -> None:
    assert {"sft", "torch_ddp"} <= {loop.name for loop in client.loops().loops}
    assert client.loops().allowed == [LOOP]
    health = client.health()
    assert health.registry["incarnation"] == 1
    assert [node.name for node in health.nodes] == ["node-1"]


def test_documents_of_a_newer_server_can_be_read(client: Client) -> None:
    """A client that breaks on a field it does not know forces everyone to upgrade at once."""
    document = client.submit(loop=LOOP).status().model_dump(mode="json")
    document["spec"]["queue"] = "night"
    document["spec"]["resources"]["tpus"] = 1
    newer = httpx.Response(200, json=document | {"mood": "good"})
    job = result_of(status(document["job_id"]), newer, "http://x")
    assert job.spec.loop == LOOP


# Errors


def _kinds(root: type[SchedulerError] = SchedulerError) -> list[type[SchedulerError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in _kinds(child))]


@pytest.mark.parametrize("kind", [kind for kind in _kinds() if kind.__module__ == errors.__name__])
def test_a_problem_document_becomes_the_error_it_was(kind: type[SchedulerError]) -> None:
    """The tree in errors.py is the contract; a class that is lost over HTTP cannot be caught."""
    answer = _problem(kind.http_status, kind.code, errors=[{"field": "loop", "message": "no"}])
    with pytest.raises(kind) as raised:
        result_of(status("x"), answer, "http://x")
    assert type(raised.value) is kind
    assert str(raised.value.problems[0]) == "loop: no"
    assert type(pickle.loads(pickle.dumps(raised.value))) is kind


def test_a_code_of_a_newer_server_keeps_its_status() -> None:
    with pytest.raises(SchedulerError, match="in words") as raised:
        result_of(status("x"), _problem(429, "quota_exceeded"), "http://x")
    assert (raised.value.http_status, raised.value.code) == (429, "quota_exceeded")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (httpx.Response(404, text="<h1>nginx</h1>"), ServerUnreachable),
        (httpx.Response(502, text="bad gateway"), ServerUnreachable),
        (httpx.Response(302, headers={"location": "/login"}), ServerUnreachable),
        (httpx.Response(200, text="<h1>Jupyter</h1>"), ServerUnreachable),
        (httpx.Response(200, json={"hello": 1}), ServerUnreachable),
        (httpx.Response(401, text="who?"), Unauthorized),
    ],
)
def test_another_program_on_the_port_is_not_taken_for_a_scheduler(answer: httpx.Response, kind: Any) -> None:
    """8000 is everybody's favourite port."""
    answer.request = httpx.Request("GET", "http://x/api")
    with pytest.raises(kind, match="SCHEDULER_"):
        result_of(status("x"), answer, "http://x")


def test_a_scheduler_that_is_not_there_is_said_soon_and_with_the_next_command() -> None:
    """Whoever forgot `scheduler up` should not stare at a blank line for half a minute."""
    with pytest.raises(ServerUnreachable, match=r"http://127.0.0.1:9\b.*scheduler up.*SCHEDULER_URL"):
        Client("http://127.0.0.1:9", retry_s=0.2).submit(loop="sft")


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "localhost", "http://", "ftp://x", "http://x:99999", "http://["]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ServerUnreachable, match="SCHEDULER_URL to something like"):
        Client(url)


def test_address_and_token_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D5: `scheduler.submit` with nothing but two variables set; a proxy set there is not for loopback."""
    with scheduler_at(tmp_path, token=TOKEN) as served:
        monkeypatch.setenv("SCHEDULER_URL", f"{served.url}/api/training/")
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("SCHEDULER_TOKEN", "wrong")
        with pytest.raises(Unauthorized, match="SCHEDULER_TOKEN"):
            scheduler.submit(loop=LOOP)
        monkeypatch.setenv("SCHEDULER_TOKEN", TOKEN)
        job = scheduler.submit(loop=LOOP, name="env")
        assert scheduler.wait(job.id, 10).status == "completed"
        assert [one.job_id for one in scheduler.list_jobs()] == [job.id]
        assert scheduler.get(job.id).last == job.status()
        with pytest.raises(scheduler.NotAllowed):
            scheduler.force_start(job.id)
        with pytest.raises(scheduler.NotAllowed):
            scheduler.cancel(job.id)


# Async


async def test_the_async_client_does_all_of_it(served: Served) -> None:
    """The same flows, awaited: nothing may block the caller's event loop."""
    async with AsyncClient(served.url) as client:
        job = await client.submit(
            loop=LOOP, name="async", project="async", config={"seconds": 0.3, "log": "hi\n"}
        )
        other, _ = await client.submit_batch(
            [{"loop": LOOP, "project": "async", "config": {"seconds": 60}}] * 2
        )
        assert "".join([piece async for piece in job.logs(follow=True)]) == "attempt 1\nhi\n"
        assert (await job.result(10)).output_dir == "/storage/out"
        assert (await other.cancel()).job_id == other.id
        assert (await other.wait(10)).status is Status.CANCELLED
        assert (await other.force_start()).previous_status is Status.CANCELLED
        await other.cancel()
        assert len([found async for found in client.list_jobs(project="async")]) == 3
        assert (await client.events(job.id)).events[0].kind == "Submitted"
        assert (await client.get(job.id)).last == await job.status()
        assert (await client.health()).version
        assert (await client.loops()).loops
        assert (await client.reconcile(dry_run=True)).dry_run
        assert [repair async for repair in client.repairs()] == []
        with pytest.raises(NotAllowed, match="pause"):
            await job.pause()
        with pytest.raises(NotAllowed, match="resume"):
            await job.resume()
        with pytest.raises(NotAllowed):
            await client.mark_failed(job.id)


async def test_the_async_client_does_not_double_a_lost_submit(served: Served) -> None:
    async with AsyncClient(served.url) as client:
        await client.health()
        served.wire.lose_answers(1)
        job = await client.submit(loop=LOOP, project="async-once")
        assert [found.job_id async for found in client.list_jobs(project="async-once")] == [job.id]


async def test_the_async_client_leaves_the_event_loop_free(served: Served) -> None:
    """A pause between two looks that blocks would freeze the whole program of whoever waits."""
    async with AsyncClient(served.url) as client:
        blocker = await client.submit(loop=LOOP, config={"seconds": 60}, resources=WIDE)
        job = await client.submit(loop=LOOP, resources=WIDE)
        follower = asyncio.create_task(anext(job.logs(follow=True)))
        began_s = time.monotonic()
        await asyncio.sleep(0.5)
        assert time.monotonic() - began_s < 2.5
        follower.cancel()
        await job.cancel()
        await blocker.cancel()


# Spec files


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("loop: sft\nconfig: {learning_rate: 1e-4, r: 8}\n", {"learning_rate": 1e-4, "r": 8}),
        ("loop: sft\nconfig:\n  answer: 'no'\n  at: 12:30\n  day: 2026-01-02\n", None),
        (
            "loop: sft\nconfig: {zip: '0123', hex: 0x10, octal: 0o17, big: 1.5e+3, half: .5}\n",
            {"zip": "0123", "hex": 16, "octal": 15, "big": 1500.0, "half": 0.5},
        ),
    ],
)
def test_yaml_means_what_it_looks_like(tmp_path: Path, text: str, config: Any) -> None:
    """YAML 1.1 reads `1e-4` as text and `no` as false: both end in a training run that nobody meant."""
    path = tmp_path / "job.yaml"
    path.write_text(text)
    assert load_spec(path).config == (config or {"answer": "no", "at": "12:30", "day": "2026-01-02"})


def test_json_and_yaml_files_give_the_same_spec(tmp_path: Path) -> None:
    spec = {"loop": "sft", "resources": {"num_ranks": 2}, "config": {"lr": 1e-4, "on": True, "x": None}}
    (tmp_path / "job.json").write_text(json.dumps(spec, indent="\t"))
    (tmp_path / "job.yaml").write_text(
        "loop: sft\nresources: {num_ranks: 2}\nconfig: {lr: 1e-4, on: true, x: null}"
    )
    assert load_spec(tmp_path / "job.json") == load_spec(tmp_path / "job.yaml") == JobSpec(**spec)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.yaml", "loop: sft\nresources:\n  num_ranks: 0\n", r"resources.num_ranks: .*\(.*a.yaml, line 3\)"),
        ("a.yaml", "loop: sft\nprioritty: 1\n", r"prioritty: .*did you mean `priority`.*line 2"),
        ("a.yaml", "loop: sft\nname: [\n", r"line 3, column 1: is not YAML"),
        ("a.yaml", "loop: sft\nname: a\nname: b\n", r"line 3: name is given twice"),
        ("a.yaml", "loop: &a [*a]\n", r"contains itself"),
        ("a.yaml", "loop: !!python/object/apply:os.getcwd []\n", r"is not YAML"),
        ("a.yaml", "- sft\n", r"holds a list"),
        ("a.yaml", "", r"is empty"),
        ("a.json", '{\n"loop": "sft",\n}', r"line 3, column 1: is not JSON"),
        ("a.json", '{"loop": "a", "loop": "b"}', r"loop is given twice"),
        ("a.json", '{"loop": "a", "config": {"lr": NaN}}', r"NaN is not a number"),
        ("a.json", '{\n\t"loop": "sft",\n\t"max_failures": "3"\n}', r"max_failures: .*line 3"),
    ],
)
def test_a_bad_file_names_line_and_field(tmp_path: Path, name: str, text: str, words: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InvalidSpec, match=words):
        load_spec(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"loop: \xff\xfe")
    for path, words in (
        (tmp_path / "none.yaml", "is not there"),
        (tmp_path, "directory"),
        (tmp_path / "bad.yaml", "UTF-8"),
    ):
        with pytest.raises(InvalidSpec, match=words):
            load_spec(path)


def _until_running(job: scheduler.JobHandle) -> scheduler.JobHandle:
    _until(lambda: job.status().status is Status.RUNNING)
    return job


def _until(seen: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 10
    while not seen():
        assert time.monotonic() < until_s, "it did not come to be"
        time.sleep(0.05)


def _problem(status: int, code: str, **more: Any) -> httpx.Response:
    body = {"title": "T", "status": status, "detail": "in words", "code": code, **more}
    return httpx.Response(status, json=body, headers={"content-type": "application/problem+json"})


def test_a_path_seen_from_here_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job runs elsewhere; a hub id that names nothing here stays as it is."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").touch()
    (tmp_path / "job.yaml").write_text("loop: sft\nconfig: {model: org/name, dataset: data/train.jsonl}\n")
    monkeypatch.chdir(tmp_path)
    config = scheduler.load_spec("job.yaml").config
    assert config == {"model": "org/name", "dataset": str(tmp_path / "data" / "train.jsonl")}
