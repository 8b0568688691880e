"""How every client of ours goes out: past all proxies on this machine, elsewhere as the environment says."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.request import (
    proxy_bypass_environment,  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]  typeshed has it not
)

import httpx

from scheduler.errors import InvalidRequest, Problem

T = TypeVar("T")

_SCHEMES = ("http", "https", "socks5", "socks5h")
_TRUST = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")
_MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Proxy:
    variable: str
    """Which variable of the environment names it."""
    url: str

    def __str__(self) -> str:
        """Without what else an URL may hold."""
        return f"{self.variable} ({self.url.rpartition('@')[2][:100]!r})"


def http_client(kind: Callable[..., T], url: str, **options: Any) -> T:
    """An `httpx.Client` or `AsyncClient`, for *url* alone.

    Raises InvalidRequest, naming the variable, when the environment says how to go there in a way that cannot be.
    """
    proxy = proxy_of(url)
    try:
        return kind(
            trust_env=False,  # all that it says is in these two
            proxy=_checked(proxy) if proxy else None,
            verify=_trust(url, proxy),
            **options,
        )
    except ImportError:
        assert proxy is not None, "only a SOCKS proxy needs a package"
        what = "is a SOCKS proxy, which needs one more package: pip install 'httpx[socks]'"
        raise _refused(proxy, what) from None


def proxy_of(url: str) -> Proxy | None:
    """The one that the environment names for *url*; None for this machine, and where NO_PROXY says so."""
    parts = httpx.URL(url)
    if is_loopback(parts.host) or _is_excepted(parts.host):
        return None
    for name in (f"{parts.scheme}_proxy", "all_proxy"):
        variable = name if name in os.environ else name.upper()  # the small one wins, also when it is empty
        if value := os.environ.get(variable, "").strip():
            return Proxy(variable, value)
    return None


def by_proxy(url: str) -> str:
    """For the end of a sentence that says *url* was not reached; empty where no proxy stands in between."""
    proxy = proxy_of(url)
    if proxy is None:
        return ""
    return f", through the proxy of {proxy}: correct or unset that, or add {httpx.URL(url).host} to NO_PROXY"


def is_loopback(host: str) -> bool:
    """Whether *host* is this machine itself, whatever it is called."""
    name = host.strip("[]").rstrip(".").lower()
    if name in ("localhost", "ip6-localhost") or name.endswith(".localhost"):
        return True
    if (address := _address(name)) is None:
        return False
    inner = getattr(address, "ipv4_mapped", None) or address
    return inner.is_loopback or inner.is_unspecified


def _is_excepted(host: str) -> bool:
    """By name as the standard library reads NO_PROXY; and by network, as 10.0.0.0/8."""
    if proxy_bypass_environment(host):
        return True
    address, listed = _address(host), os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    return address is not None and any(
        address in net for entry in listed.split(",") if (net := _network(entry.strip()))
    )


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None


def _checked(proxy: Proxy) -> httpx.Proxy:
    try:
        found = httpx.URL(proxy.url if "://" in proxy.url else f"http://{proxy.url}")
        is_one = found.scheme in _SCHEMES and bool(found.host) and (found.port or 0) <= _MAX_PORT
        if is_one and not set(found.host) & set(" %"):
            return httpx.Proxy(found)
    except (httpx.InvalidURL, ValueError):
        pass
    raise _refused(proxy, "is not the address of a proxy, such as http://proxy.example.org:3128")


def _trust(url: str, proxy: Proxy | None) -> ssl.SSLContext:
    """Which certificates are believed.  Where nothing is encrypted none has to be, and reading them takes its time."""
    if httpx.URL(url).scheme == "http" and (proxy is None or not proxy.url.lower().startswith("https")):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # of which ssl.SSLError is one
        given = [name for name in _TRUST if os.environ.get(name)]
        words = (
            f"names what cannot be used for certificates ({error.strerror or error}); correct it, or unset it"
        )
        names = " or ".join(given) or "SSL_CERT_FILE"
        raise InvalidRequest(f"{names} {words}", (Problem(names, words),)) from None


def _refused(proxy: Proxy, what: str) -> InvalidRequest:
    words = f"{what}; correct it, unset it, or add the host of the URL to NO_PROXY"
    return InvalidRequest(f"{proxy} {words}", (Problem(str(proxy), words),))
