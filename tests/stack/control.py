"""How the process that started a stack speaks to it: HTTP on a Unix socket in the stack's folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from aiohttp import web

from tests.stack.errors import StackError
from tests.stack.faults import Fault, Faults
from tests.stack.gateway import Gateway


async def serve(gateway: Gateway, migrate: Callable[[Path], list[str]], at: Path) -> web.AppRunner:
    """Serve until the runner that is returned is cleaned up."""
    routes = web.RouteTableDef()

    @routes.put("/faults")
    async def faults(request: web.Request) -> web.Response:
        asked = await request.json()
        await gateway.set_faults(Faults(tuple(Fault(**fault) for fault in asked["faults"]), asked["seed"]))
        return web.json_response({})

    @routes.get("/requests")
    async def requests(_: web.Request) -> web.Response:
        return web.json_response([asdict(request) for request in gateway.requests])

    @routes.delete("/requests")
    async def forget(_: web.Request) -> web.Response:
        gateway.requests.clear()
        return web.json_response({})

    @routes.post("/migrate")
    async def apply(request: web.Request) -> web.Response:
        try:
            return web.json_response(migrate(Path(await request.json())))
        except StackError as error:
            return web.Response(status=409, text=str(error))

    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    await web.UnixSite(runner, str(at)).start()
    return runner
