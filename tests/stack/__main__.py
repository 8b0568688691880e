"""`make supabase`: the same stack in the foreground, with data and keys that are kept."""

from __future__ import annotations

import argparse
import asyncio
import socket
from pathlib import Path

from tests.stack.errors import StackError
from tests.stack.keys import Keys
from tests.stack.plane import Options, Plane, ended_by_signal, running
from tests.stack.postgrest import ROOT

USUAL_PORT = 54321


def port_or_any(port: int) -> int:
    """*port* when it is free, else 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port


def told(plane: Plane, keys: Keys, data: Path) -> str:
    return f"""\
# Supabase is up, with its data in {data}.  Ctrl-C ends it.
# For the scheduler, and for nobody else: this key reads and writes everything.
export SCHEDULER_SUPABASE_URL={plane.gateway.url}
export SCHEDULER_SUPABASE_KEY={keys.secret}
# For front ends, with the access token of a signed-in user beside it.
export SUPABASE_ANON_KEY={keys.publishable}
# To look inside:
#   psql '{plane.postgres.dsn("postgres")}'"""


async def serve(data: Path, port: int) -> None:
    ended = ended_by_signal()
    data.mkdir(parents=True, exist_ok=True)
    keys = Keys.kept_in(data / "keys.json")
    async with running(Options(keys=keys, data=str(data / "postgres"), port=port_or_any(port))) as plane:
        print(told(plane, keys, data), flush=True)
        await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.stack", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=ROOT / ".cache" / "supabase", help="folder of data and keys"
    )
    parser.add_argument(
        "--port", type=int, default=USUAL_PORT, help="port of the gateway; another if it is taken"
    )
    asked = parser.parse_args()
    try:
        asyncio.run(serve(asked.data.resolve(), asked.port))
    except StackError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
