"""Where the API of a scheduler is, and what answers there: past every proxy, and whatever it may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import httpx

from scheduler.settings import Settings

PROBE_WITHIN_S = 5.0
_THIS_MACHINE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where to ask a server that listens on every address."""


class Life(StrEnum):
    """What was found at the address.  Only SILENT may be nobody; everything else lives."""

    SERVES = "serves"
    NOT_READY = "not ready"
    REFUSES = "refuses"
    SLOW = "slow"
    FOREIGN = "foreign"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen at the address, also in words."""

    life: Life
    words: str
    health: Mapping[str, Any] = field(default_factory=dict)
    """What `/health` said, where it is a scheduler's."""


def api_url(host: str, port: int) -> str:
    """The URL under which this machine reaches a server that listens on *host* and *port*."""
    host = _THIS_MACHINE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def client(settings: Settings, timeout_s: float = PROBE_WITHIN_S) -> httpx.Client:
    """For asking the scheduler of this machine.  No proxy, no `.netrc`: what the environment says is for elsewhere."""
    token = settings.token.get_secret_value() if settings.token else None
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(timeout=timeout_s, headers=headers, trust_env=False)


def probe(url: str, settings: Settings) -> Seen:
    """Ask once how the scheduler at *url* is.  Raises nothing."""
    try:
        with client(settings) as http:
            return _understood(url, http.get(f"{url}/health"), settings)
    except (httpx.ConnectError, httpx.InvalidURL) as error:
        return Seen(Life.SILENT, f"nothing listens at {url} ({error})")
    except httpx.TimeoutException:
        return Seen(Life.SLOW, f"{url} takes connections and gave no answer within {PROBE_WITHIN_S:g} s")
    except httpx.HTTPError as error:
        return Seen(Life.FOREIGN, f"what answers at {url} is no scheduler ({type(error).__name__}: {error})")


def _understood(url: str, answer: httpx.Response, settings: Settings) -> Seen:
    said = _document(answer)
    if answer.status_code in (401, 403):
        return Seen(Life.REFUSES, f"{url} answers {answer.status_code}: {said.get('detail') or 'refused'}")
    if "status" not in said or "version" not in said:
        return Seen(Life.FOREIGN, f"what answers at {url} is no scheduler (status {answer.status_code})")
    if said.get("cluster") and said["cluster"] != settings.cluster:
        whose = f"the scheduler of cluster {said['cluster']!r} answers at {url}"
        return Seen(Life.FOREIGN, whose, said)
    if answer.status_code != 200 or not said.get("registry"):
        why = "; ".join(map(str, said.get("problems") or ["no reason given"]))
        return Seen(Life.NOT_READY, f"{url} answers {answer.status_code}: {why}", said)
    return Seen(Life.SERVES, f"{url} answers", said)


def _document(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        said = answer.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
