"""What the pages load besides themselves: files of this package, under names that change with their content."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response

from scheduler.errors import SchedulerError
from serve_app.problems import answer

router = APIRouter(include_in_schema=False)
STATIC = Path(__file__).parents[1] / "static"
_TYPES = {".css": "text/css", ".js": "text/javascript"}
_FOR_EVER = "public, max-age=31536000, immutable"


class NoSuchFile(SchedulerError):
    http_status = 404
    code = "not_found"


@router.get("/static/{path:path}")
async def static(path: str) -> Response:
    given, name = _split(path)
    if name not in _files():
        return answer(NoSuchFile(f"there is no file {name[:100]!r} here"))
    kept = {"Cache-Control": _FOR_EVER} if given == version() else None
    return FileResponse(STATIC / name, media_type=_TYPES[Path(name).suffix], headers=kept)


def url(name: str) -> str:
    """Where a page finds *name*.  A browser may keep it for ever: another content has another URL.

    The version stands before the name, so that what a module imports from `./` has it too: under two URLs it
    would be two modules, and each key pressed would count twice.
    """
    return f"/static/{version()}/{name}"


def _split(path: str) -> tuple[str, str]:
    """The version that *path* begins with, of ours or of a server before it, and the name of the file."""
    found = re.fullmatch(r"(?:([0-9a-f]{12})/)?(.*)", path, re.DOTALL)
    return (found[1] or "", found[2]) if found else ("", path)


@lru_cache(maxsize=1)
def _files() -> frozenset[str]:
    """Only these are served, whatever a path may say."""
    return frozenset(str(path.relative_to(STATIC)) for path in STATIC.rglob("*") if path.suffix in _TYPES)


@lru_cache(maxsize=1)
def version() -> str:
    """Of all files together."""
    digest = hashlib.sha256()
    for name in sorted(_files()):
        digest.update(name.encode() + b"\0" + (STATIC / name).read_bytes())
    return digest.hexdigest()[:12]
