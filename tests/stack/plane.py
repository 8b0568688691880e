"""PostgreSQL, PostgREST and the gateway, started in this order in one process and ended in the other."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.stack import migrations
from tests.stack.gateway import Gateway
from tests.stack.keys import Keys
from tests.stack.postgres import Postgres
from tests.stack.postgrest import ROOT, PostgREST

TEMPLATES = ROOT / ".cache" / "postgres"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    keys: Keys
    migrations: str | None = str(migrations.FOLDER)
    """The folder of migrations that are applied at the start; None: none are."""
    data: str | None = None
    """The folder of durable data; None: what is written is gone in the end."""
    port: int = 0
    """The gateway's; 0: any that is free."""
    max_rows: int | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Options:
        fields = json.loads(text)
        return cls(**fields | {"keys": Keys(**fields["keys"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """What runs."""

    folder: Path
    """Sockets and logs."""
    postgres: Postgres
    postgrest: PostgREST
    gateway: Gateway

    def pids(self) -> dict[str, int]:
        assert self.postgres.process is not None and self.postgrest.process is not None
        return {
            "plane": os.getpid(),
            "postgres": self.postgres.process.pid,
            "postgrest": self.postgrest.process.pid,
        }

    def migrate(self, folder: Path) -> list[str]:
        """Apply the migrations that are missing; afterwards PostgREST knows the schema.  Returns their versions."""
        applied = apply_migrations(self.postgres, folder)
        self.postgrest.restart()
        return applied


@asynccontextmanager
async def running(options: Options) -> AsyncIterator[Plane]:
    """Start everything; end everything, also when a part of it does not start."""
    async with AsyncExitStack() as ends:
        # Not below TMPDIR: the path of a Unix socket may have 107 characters.
        folder = Path(tempfile.mkdtemp(prefix="supabase-", dir="/tmp"))
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        data = None if options.data is None else Path(options.data)
        postgres = Postgres(folder, cache=TEMPLATES, data=data)
        ends.callback(postgres.stop)
        postgres.start()
        if options.migrations is not None:
            apply_migrations(postgres, Path(options.migrations))
        postgrest = PostgREST(
            folder,
            dsn=postgres.dsn("authenticator"),
            jwt_secret=options.keys.jwt_secret,
            max_rows=options.max_rows,
        )
        ends.callback(postgrest.stop)
        postgrest.start()
        older = frozenset((options.keys.anon, options.keys.service))
        gateway = Gateway(postgrest.socket, older, options.keys.exchanged(), port=options.port)
        ends.push_async_callback(gateway.stop)
        await gateway.start()
        yield Plane(folder=folder, postgres=postgres, postgrest=postgrest, gateway=gateway)


def apply_migrations(postgres: Postgres, folder: Path) -> list[str]:
    with postgres.connect("postgres") as connection:
        applied = migrations.apply(connection, folder)
    if applied:
        with postgres.connect("supabase_admin") as admin:
            migrations.keep_seeds(admin)
    return applied


def ended_by_signal() -> asyncio.Event:
    """Set by SIGINT and SIGTERM."""
    ended = asyncio.Event()
    for sent in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sent, ended.set)
    return ended
