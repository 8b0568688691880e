"""The process behind a `Stack`.

Reads its options from the first line of its standard input, says in one line what runs where, both as JSON, and
ends when its standard input does: so also when whoever started it is killed.
"""

from __future__ import annotations

import asyncio
import json
import sys

from tests.stack import control
from tests.stack.errors import StackError
from tests.stack.plane import Options, ended_by_signal, running


async def serve(options: Options) -> None:
    ended = ended_by_signal()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    async with running(options) as plane:
        runner = await control.serve(plane.gateway, plane.migrate, plane.folder / "control.sock")
        said = {"url": plane.gateway.url, "folder": str(plane.folder), "pids": plane.pids()}
        print(json.dumps(said), flush=True)
        await ended.wait()
        await runner.cleanup()


if __name__ == "__main__":
    try:
        asyncio.run(serve(Options.from_json(sys.stdin.readline())))
    except StackError as error:
        sys.exit(str(error))
