"""With which settings something was started, safe to keep in a file; and what is different now."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr

from scheduler.settings import Settings, as_text

_HIDDEN = frozenset({"webhook_url"})
"""Besides what is typed as a secret: whoever has this address can post to it."""
_MARK, _SALT, _UNSET = "hash:", "salt", ""
RAY_TOKEN = "RAY_AUTH_MODE"

Fingerprint = dict[str, str]
"""Name of the setting -> its value, or a salted hash where the value is a secret."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that is not what it was."""

    name: str
    there: str
    here: str
    weakens: bool = False
    """Serving as here would protect less than what is there does."""

    def __str__(self) -> str:
        return f"{self.name}: {self.there} there, {self.here} here"


def fingerprint(settings: Settings, salt: str | None = None) -> Fingerprint:
    salt = salt or secrets.token_hex(16)
    values = {name: _value(name, getattr(settings, name), salt) for name in Settings.model_fields}
    return values | {RAY_TOKEN: ray_auth_mode(), _SALT: salt}


def differences(there: Mapping[str, str], settings: Settings) -> list[Difference]:
    """What of *settings* is not as in the fingerprint *there*.  What that does not name is not compared."""
    here = fingerprint(settings, there.get(_SALT))
    named = [name for name in here if name in there and name != _SALT]
    return [_difference(name, there[name], here[name]) for name in named if there[name] != here[name]]


def ray_auth_mode() -> str:
    """`disabled` only where somebody said so."""
    return "disabled" if os.environ.get(RAY_TOKEN) == "disabled" else "token"


def _value(name: str, value: object, salt: str) -> str:
    text = _UNSET if value is None else as_text(value)
    is_secret = isinstance(value, SecretStr) or name in _HIDDEN or ("://" in text and "@" in text)
    return _MARK + hashlib.sha256(f"{salt} {text}".encode()).hexdigest() if is_secret and text else text


def _difference(name: str, there: str, here: str) -> Difference:
    shown = name if name == RAY_TOKEN else f"SCHEDULER_{name.upper()}"
    weakens = (name == "token" and not here) or (name == RAY_TOKEN and here == "disabled")
    words = _words(there), _words(here)
    return Difference(shown, words[0], "another one" if words == ("set", "set") else words[1], weakens)


def _words(value: str) -> str:
    if value.startswith(_MARK):
        return "set"
    return repr(value) if value else "not set"
