"""A small reverse proxy that serves somebody below a path, and takes the path away."""

from __future__ import annotations

from collections.abc import Callable

import httpx
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

_OF_THE_HOP = ("connection", "keep-alive", "transfer-encoding", "host", "content-length")


class ReverseProxy:
    """ASGI.  *headers* says what is sent on, for what came."""

    def __init__(self, url: str, prefix: str, headers: Callable[[Request], dict[str, str]]) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=None)
        self._prefix, self._headers = prefix, headers
        self.strays: list[str] = []
        """Paths outside the prefix: nobody is there."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path, root = request.url.path, f"{self._prefix}/"
        if not path.startswith(root):
            self.strays.append(path)
            return await Response(status_code=404)(scope, receive, send)
        url = "/" + path.removeprefix(root) + (f"?{request.url.query}" if request.url.query else "")
        kept = {name: value for name, value in request.headers.items() if name not in _OF_THE_HOP}
        asked = self._client.build_request(
            request.method, url, headers=kept | self._headers(request), content=await request.body()
        )
        answer = await self._client.send(asked, stream=True)
        try:
            response = StreamingResponse(answer.aiter_raw(), answer.status_code)
            response.raw_headers = [
                one for one in answer.headers.raw if one[0].lower().decode() not in _OF_THE_HOP
            ]
            return await response(scope, receive, send)
        finally:
            await answer.aclose()
