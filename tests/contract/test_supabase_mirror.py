"""What the mirror makes of everything that can answer in place of the database, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg
import pytest

from scheduler.adapters.supabase.mirror import SCHEMA_VERSION, SupabaseMirror
from scheduler.errors import MirrorRefused, MirrorUnavailable, SchedulerError, Superseded
from scheduler.ports import JobQuery
from scheduler.testing import a_job
from tests.conftest import free_port, wait_until
from tests.contract.suites.mirror_store import a_mirrored, a_sign
from tests.stack.faults import Kind
from tests.stack.stack import Stack

PATIENCE_S = 0.5
SECRET = "sb_secret_do-not-tell"


@asynccontextmanager
async def a_mirror(url: str, key: str, timeout_s: float = 10.0) -> AsyncIterator[SupabaseMirror]:
    mirror = SupabaseMirror(url, key, "default", timeout_s)
    try:
        yield mirror
    finally:
        await mirror.close()


async def answer_of(url: str, key: str, timeout_s: float = 10.0) -> SchedulerError | str:
    async with a_mirror(url, key, timeout_s) as mirror:
        try:
            return await mirror.check()
        except SchedulerError as error:
            return error


# Outages


@pytest.mark.parametrize("kind", ["refuse", "hang", "500", "429", "reset", "lose"])
async def test_an_outage_is_told_as_one(fresh_stack: Stack, kind: Kind) -> None:
    """P5: whatever may have been done or not is asked again; nothing is taken for refused, nor for done."""
    async with a_mirror(fresh_stack.url, fresh_stack.service_key, PATIENCE_S) as mirror:
        await mirror.claim(1)
        job = a_job()
        fresh_stack.gateway.fault(kind)
        for call in (mirror.apply([a_mirrored(job)]), mirror.active(None, 10), mirror.check()):
            with pytest.raises(MirrorUnavailable, match=r"127\.0\.0\.1"):
                await call
        fresh_stack.gateway.clear()
        await mirror.apply([a_mirrored(job)])
        assert len((await mirror.rows([job.id])).rows) == 1


async def test_a_claim_whose_answer_was_lost_is_claimed_anew(fresh_stack: Stack) -> None:
    """The number that nobody heard of is given to nobody."""
    async with a_mirror(fresh_stack.url, fresh_stack.service_key) as mirror:
        fresh_stack.gateway.fault("lose", times=1)
        with pytest.raises(MirrorUnavailable):
            await mirror.claim(1)
        assert await mirror.claim(1) == 2
        await mirror.vouch([])


async def test_an_answer_that_is_late_is_none(fresh_stack: Stack) -> None:
    """A loop that waits for ever is one that died."""
    async with a_mirror(fresh_stack.url, fresh_stack.service_key, PATIENCE_S) as mirror:
        assert "schema version" in await mirror.check()
        fresh_stack.gateway.fault("slow", delay_s=20)
        with pytest.raises(MirrorUnavailable, match=r"did not answer within 0\.5 s"):
            await mirror.check()


async def test_one_request_carries_a_whole_batch(fresh_stack: Stack) -> None:
    """Traffic grows with what changed, never with one request for each job."""
    async with a_mirror(fresh_stack.url, fresh_stack.service_key) as mirror:
        await mirror.claim(1)
        jobs = [a_job("running") for _ in range(600)]
        fresh_stack.gateway.forget()
        await mirror.apply([a_mirrored(job) for job in jobs])
        await mirror.vouch([a_sign(job) for job in jobs])
        await mirror.apply([])
        assert [request.path for request in fresh_stack.gateway.requests] == [
            "/rest/v1/rpc/scheduler_apply",
            "/rest/v1/rpc/scheduler_vouch",
        ]


# Answers of something else


@dataclass
class Impostor:
    """Answers every request alike, as a proxy, another server or a broken line would."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    pause_s: float | None = None
    """Between two bytes of the body; None sends it at once."""
    url: str = ""


@pytest.fixture
def impostor() -> Iterator[Impostor]:
    it = Impostor()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(it.status)
            for name, value in (*it.headers, ("Content-Length", str(len(it.body)))):
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self._send()

        def _send(self) -> None:
            if it.pause_s is None:
                self.wfile.write(it.body)
                return
            for byte in it.body:
                self.wfile.write(bytes([byte]))
                time.sleep(it.pause_s)

        def log_message(self, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            """Not into the output of the tests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    it.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield it
    server.shutdown()
    thread.join()
    server.server_close()


def said(code: str) -> bytes:
    return json.dumps({"code": code, "message": "the database's words", "hint": None}).encode()


NO_ANSWERS = {
    "a word": b'"OK"',
    "nothing": b"",
    "half of it": b'{"schema_version": 1, "ro',
    "another object": b'{"hello": "world"}',
    "a list": b"[]",
    "a page": b"<html>log in to the hotel's network</html>",
    "bytes that are no text": b"\xff\xfe\x00",
    "a wrong type": b'{"schema_version": "one", "role": 1}',
}


@pytest.mark.parametrize("body", NO_ANSWERS.values(), ids=NO_ANSWERS)
async def test_success_without_the_databases_answer_is_none(impostor: Impostor, body: bytes) -> None:
    """P5: whatever says 200 to everything must not empty the outbox."""
    impostor.body = body
    assert isinstance(await answer_of(impostor.url, SECRET), MirrorUnavailable)


PASSING = {
    "a gateway that finds nobody behind it": (502, b"<html>Bad Gateway</html>"),
    "a paused project": (540, b'{"message":"Project paused"}'),
    "PostgREST without its database": (503, said("PGRST002")),
    "PostgREST out of connections": (504, said("PGRST003")),
    "a statement that took too long": (500, said("57014")),
    "a deadlock": (500, said("40P01")),
    "a full disk": (503, said("53100")),
    "a database that only reads for now": (405, said("25006")),
    "too many requests": (429, b""),
    "too slow a request": (408, b""),
}


@pytest.mark.parametrize(("status", "body"), PASSING.values(), ids=PASSING)
async def test_what_may_pass_is_unavailable(impostor: Impostor, status: int, body: bytes) -> None:
    """R6: it is tried again as it is; nobody looks for a bad row."""
    impostor.status, impostor.body = status, body
    assert isinstance(await answer_of(impostor.url, SECRET), MirrorUnavailable)


LASTING = {
    "a row it does not take": (400, said("23514"), "the database's words"),
    "a document nested too deep": (500, said("54001"), "the database's words"),
    "a key of another role": (401, said("42501"), "SCHEDULER_SUPABASE_KEY"),
    "a key of nobody": (401, b'{"message":"Invalid API key"}', "SCHEDULER_SUPABASE_KEY"),
    "a function that is not there": (404, said("PGRST202"), "supabase db push"),
    "another server": (404, b"<html>Not Found</html>", "SCHEDULER_SUPABASE_URL"),
    "a server that moved": (301, b"", "SCHEDULER_SUPABASE_URL"),
    "too big a body": (413, b"<html>", "Request Entity Too Large"),
    "an error that is a list": (400, b"[1]", "Bad Request"),
}


@pytest.mark.parametrize(("status", "body", "words"), LASTING.values(), ids=LASTING)
async def test_what_lasts_is_refused_with_the_remedy(
    impostor: Impostor, status: int, body: bytes, words: str
) -> None:
    """R8: asking again does not help; a person must do something, or one row is to blame."""
    impostor.status, impostor.body = status, body
    impostor.headers = (("Location", "https://elsewhere.example/"),)
    error = await answer_of(impostor.url, SECRET)
    assert isinstance(error, MirrorRefused)
    assert words in error.message
    assert str(status) in error.message


async def test_an_answer_that_trickles_in_is_late_all_the_same(impostor: Impostor) -> None:
    """A time limit for each byte is none."""
    impostor.body, impostor.pause_s = b" " * 100, 0.05
    error = await answer_of(impostor.url, SECRET, PATIENCE_S)
    assert isinstance(error, MirrorUnavailable)
    assert "within 0.5 s" in error.message


# Words


@pytest.mark.parametrize("key", [SECRET, f"{SECRET}\nX-Evil: 1", f"{SECRET}\N{EURO SIGN}", f"a {SECRET}"])
async def test_no_error_tells_the_key(impostor: Impostor, key: str) -> None:
    """A log is read by many."""
    impostor.status, impostor.body = 401, b'{"message":"Invalid API key"}'
    for url in (impostor.url, f"http://ann:{SECRET}@127.0.0.1:{free_port()}", f"ftp://{SECRET}", SECRET):
        error = await answer_of(url, key)
        assert isinstance(error, SchedulerError)
        assert SECRET not in "".join(traceback.format_exception(error)) + repr(error)


@pytest.mark.parametrize(
    "url", ["", "abc.supabase.co", "ftp://abc.supabase.co", "http://", "http://[", "http://a:b"]
)
async def test_a_url_that_is_none_is_refused(url: str) -> None:
    """R8: the setting is named, instead of an error of a library."""
    error = await answer_of(url, SECRET)
    assert isinstance(error, MirrorRefused)
    assert "SCHEDULER_SUPABASE_URL" in error.message


async def test_a_key_with_a_line_end_around_it_is_taken(fresh_stack: Stack) -> None:
    """As it comes out of a file."""
    found = await answer_of(f" {fresh_stack.url}/\n", f"{fresh_stack.service_key}\n")
    assert "role service_role" in str(found)


async def test_a_mirror_that_was_closed_opens_again(fresh_stack: Stack) -> None:
    """Closing is for good manners; it must not break a loop that is still on its way."""
    async with a_mirror(fresh_stack.url, fresh_stack.service_key) as mirror:
        for _ in range(2):
            assert "answers" in await mirror.check()
            await mirror.close()
            await mirror.close()


# Keys and schemas of real projects


async def test_only_the_key_of_the_service_role_will_do(fresh_stack: Stack) -> None:
    """R8: with another key every write would fail, each by itself."""
    for key in (fresh_stack.anon_key, fresh_stack.key("service_role", expires_in_s=-3600), SECRET):
        error = await answer_of(fresh_stack.url, key)
        assert isinstance(error, MirrorRefused)
        assert "SCHEDULER_SUPABASE_KEY" in error.message


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    """One that cuts answers after two rows, and whose schema may be spoiled."""
    with Stack.start(max_rows=2) as stack:
        yield stack


async def test_an_answer_is_not_cut_where_the_project_cuts_tables(own_stack: Stack) -> None:
    """Hosted projects cut tables after 1000 rows, without a word; jobs that are cut off would seem to be gone."""
    jobs = [a_job() for _ in range(9)]
    async with a_mirror(own_stack.url, own_stack.service_key) as mirror:
        await mirror.claim(1)
        await mirror.apply([a_mirrored(job) for job in jobs])
        for job in jobs:
            own_stack.sql("update training_jobs set requested_action = 'cancel' where id = %s", job.id)
        assert len(await mirror.active(None, 100)) == 9
        assert len((await mirror.rows([job.id for job in jobs])).rows) == 9
        assert len((await mirror.inbox(None, 100)).rows) == 9
        assert len(await mirror.page(JobQuery())) == 9


@pytest.mark.parametrize(("off", "remedy"), [(-1, "supabase db push"), (1, "pip install --upgrade")])
async def test_a_schema_of_another_release_is_refused(own_stack: Stack, off: int, remedy: str) -> None:
    """R8: a scheduler and a schema that do not know each other would lie to each other."""
    with own_schema_version(own_stack, SCHEMA_VERSION + off):
        error = await answer_of(own_stack.url, own_stack.service_key)
    assert isinstance(error, MirrorRefused)
    assert f"version {SCHEMA_VERSION + off}, this release needs {SCHEMA_VERSION}" in error.message
    assert remedy in error.message


@contextlib.contextmanager
def own_schema_version(stack: Stack, version: int) -> Iterator[None]:
    (was,) = stack.sql("select pg_get_functiondef('public.scheduler_check'::regproc) as is")
    stack.sql(was["is"].replace(f"'schema_version', {SCHEMA_VERSION}", f"'schema_version', {version}"))
    try:
        yield
    finally:
        stack.sql(was["is"])


async def test_a_project_without_migrations_is_refused() -> None:
    """R8: the command that mends it is named."""
    with Stack.start(migrate=False) as stack:
        error = await answer_of(stack.url, stack.service_key)
    assert isinstance(error, MirrorRefused)
    assert "supabase db push" in error.message


# Who writes


async def test_a_claim_waits_for_the_write_that_is_under_way(fresh_stack: Stack) -> None:
    """Else a write of the old scheduler could come after the first of the new one."""
    async with a_mirror(fresh_stack.url, fresh_stack.service_key) as mirror:
        await mirror.claim(1)
        with psycopg.connect(fresh_stack.dsn()) as writer:
            writer.execute("select public.scheduler_guard('default', 1)")
            claiming = asyncio.create_task(mirror.claim(1))
            await asyncio.to_thread(
                wait_until,
                lambda: fresh_stack.sql("select pid from pg_locks where not granted"),
                within_s=10,
                what="the claim waits",
            )
            assert not claiming.done()
            writer.commit()
        assert await claiming == 2


async def test_a_database_that_was_set_back_knows_the_newest_again(fresh_stack: Stack) -> None:
    """Restored from a backup it has forgotten the last claims; the living scheduler is still the newest."""
    async with (
        a_mirror(fresh_stack.url, fresh_stack.service_key) as mirror,
        a_mirror(fresh_stack.url, fresh_stack.service_key) as other,
    ):
        await other.claim(4)
        await mirror.claim(5)
        fresh_stack.sql("delete from scheduler_incarnations")
        await mirror.vouch([])
        with pytest.raises(Superseded, match="SCHEDULER_CLUSTER"):
            await other.vouch([])
