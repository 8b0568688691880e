"""What tests and benchmarks hold in their hands: a running stack, and ways to look into it and to hurt it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, LiteralString

import httpx
import psycopg
from psycopg.rows import dict_row

from tests.stack import migrations
from tests.stack.errors import StackError
from tests.stack.faults import Fault, Kind
from tests.stack.gateway import Request
from tests.stack.keys import Keys, Signing
from tests.stack.plane import Options
from tests.stack.postgrest import ROOT


class GatewayControl:
    """The gateway of a running stack.  What is set here holds for the next request."""

    def __init__(self, control: httpx.Client) -> None:
        self._control = control

    def fault(self, kind: Kind, **details: Any) -> None:
        """From now on this fault and no other.  *details* are the fields of `Fault`."""
        self._set((Fault(kind=kind, **details),), 0)

    def mixture(self, probabilities: Mapping[Kind, float], *, seed: int, **details: Any) -> None:
        """From now on each request meets one of these faults, or none, by chance; the probabilities add up."""
        faults = (Fault(kind=kind, probability=chance, **details) for kind, chance in probabilities.items())
        self._set(tuple(faults), seed)

    def clear(self) -> None:
        """No faults.  Requests that hang are cut; the port listens again."""
        self._set((), 0)

    @property
    def requests(self) -> list[Request]:
        """Every request since the start or `forget`, oldest first, also those that met a fault."""
        return [Request(**request) for request in self._control.get("/requests").raise_for_status().json()]

    def forget(self) -> None:
        self._control.delete("/requests").raise_for_status()

    def _set(self, faults: tuple[Fault, ...], seed: int) -> None:
        body = {"faults": [asdict(fault) for fault in faults], "seed": seed}
        self._control.put("/faults", json=body).raise_for_status()


class Stack:
    """A Supabase data plane of its own: PostgreSQL, PostgREST and the gateway, on loopback only."""

    def __init__(self, process: subprocess.Popen[str], keys: Keys, said: dict[str, Any]) -> None:
        self.url: str = said["url"]
        self.pids: dict[str, int] = said["pids"]
        self.folder = Path(said["folder"])
        self.jwt_secret, self.anon_key, self.service_key = keys.jwt_secret, keys.anon, keys.service
        self.publishable_key, self.secret_key, self._keys = keys.publishable, keys.secret, keys
        self._process = process
        transport = httpx.HTTPTransport(uds=str(self.folder / "control.sock"))
        self._control = httpx.Client(transport=transport, base_url="http://stack", timeout=60)
        self._admin: psycopg.Connection[Any] | None = None
        self.gateway = GatewayControl(self._control)

    @classmethod
    @contextmanager
    def start(
        cls,
        *,
        migrate: bool = True,
        folder: Path = migrations.FOLDER,
        max_rows: int | None = None,
        signing: Signing = "HS256",
    ) -> Iterator[Stack]:
        """A stack with empty tables for the time of a `with`.

        It has the migrations in *folder*; with *migrate* False it is a project before its first one.  *max_rows*
        cuts longer answers short, as hosted projects do at 1000; None: nothing is cut.  *signing*: how users' tokens are.
        """
        applied = str(folder) if migrate else None
        stack = cls._launch(Options(keys=Keys.new(signing), migrations=applied, max_rows=max_rows))
        try:
            yield stack
        finally:
            stack.stop()

    @classmethod
    def _launch(cls, options: Options) -> Stack:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.stack.serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(options.to_json() + "\n")
        process.stdin.flush()
        if not (line := process.stdout.readline()):
            raise StackError(
                f"the stack did not start; exit status {process.wait()}, the reason is on stderr"
            )
        return cls(process, options.keys, json.loads(line))

    def stop(self) -> None:
        """End every process of the stack.  Safe to repeat."""
        if self._admin is not None:
            self._admin.close()
        self._control.close()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)  # Still there when the process was killed.

    def dsn(self, user: str = "supabase_admin") -> str:
        """For psycopg or psql, past gateway and PostgREST.  No password is asked."""
        return f"host={self.folder} user={user} dbname=postgres"

    def sql(self, query: LiteralString, *params: Any) -> list[dict[str, Any]]:
        """Run *query* (with %s for each of *params*) as the superuser and commit.  Returns its rows."""
        cursor = self._as_admin().cursor(row_factory=dict_row).execute(query, params or None)
        return cursor.fetchall() if cursor.description else []

    def user_key(self, user_id: str) -> str:
        """The access token of a signed-in user, who is signed up first when need be."""
        self.sql("insert into auth.users (id) values (%s) on conflict do nothing", user_id)
        return self.key("authenticated", sub=user_id, aud="authenticated")

    def key(self, role: str, **claims: Any) -> str:
        """A token of any role, with any claims; `expires_in_s=-1` for one that has expired."""
        return self._keys.token(role, **claims)

    def migrate(self, folder: Path = migrations.FOLDER) -> list[str]:
        """Apply the migrations that are missing.  Returns their versions; PostgREST knows the schema then."""
        answer = self._control.post("/migrate", json=str(folder))
        if answer.is_error:
            raise StackError(answer.text)
        versions: list[str] = answer.json()
        return versions

    def reset(self) -> None:
        """As after the start: tables as the migrations left them, no users, no faults, no requests seen."""
        self.gateway.clear()
        migrations.empty(self._as_admin())
        self.gateway.forget()

    def _as_admin(self) -> psycopg.Connection[Any]:
        if self._admin is None or self._admin.closed:
            self._admin = psycopg.connect(self.dsn(), autocommit=True)
        return self._admin
