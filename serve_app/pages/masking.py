"""Secrets in specs: seen by their names, or by their shape, and never shown on a page."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "••••••"

_SECRET_WORDS = frozenset(
    [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "secrets",
        "token",
        "apikey",
        "credential",
        "credentials",
        "authorization",
    ]
)
_KEYS_OF = frozenset(["api", "access", "private", "secret", "encryption", "signing", "service", "account"])
_SPECIAL_TOKENS = frozenset(["pad", "eos", "bos", "unk", "sep", "mask", "cls", "special", "stop", "image"])
"""A tokenizer's: `pad_token` is no secret."""
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_IN_URL = re.compile(r"(?P<before>\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)", re.IGNORECASE)
_ALONE_IN_URL = re.compile(r"(?<=://)[^/\s:@]+(?=@)")
"""A token without a user beside it."""
_ASSIGNED = re.compile(
    r"(?P<name>[A-Za-z][A-Za-z0-9_.-]*)(?P<between>=|: ?(?!//))(?P<value>[^\s&;,'\"=][^\s&;,'\"]*)"
)
_IN_TEXT = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|AKIA[0-9A-Z]{16}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*)|(?<=[Bb]earer )[A-Za-z0-9._~+/-]{8,}=*"
)


def masked(value: Any, name: str = "") -> Any:
    """*value* with every secret in it replaced; *name* is the key it stands under."""
    if isinstance(value, Mapping):
        return {key: masked(one, str(key)) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [
            masked(one, _option_in(before) or name) for before, one in zip(["", *value], value, strict=False)
        ]
    if value in (None, "") or isinstance(value, bool):
        return value
    if _names_a_secret(name):
        return HIDDEN
    return _without_known_shapes(value) if isinstance(value, str) else value


def unmasked(value: Any, original: Any) -> Any:
    """*value* with what is hidden in it as *original* has it, at the same place; elsewhere it stays hidden."""
    if isinstance(value, Mapping):
        known = original if isinstance(original, Mapping) else {}
        return {key: unmasked(one, known.get(key)) for key, one in value.items()}
    if isinstance(value, list):
        known_list = (
            original if isinstance(original, list) and len(original) == len(value) else [None] * len(value)
        )
        return [unmasked(one, known) for one, known in zip(value, known_list, strict=True)]
    if isinstance(value, str) and HIDDEN in value and original is not None:
        return original if value in (HIDDEN, masked(original)) else value
    return value


def _names_a_secret(name: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(name)]
    if "token" in words and _SPECIAL_TOKENS & set(words):
        return False
    follows = any(first in _KEYS_OF and second == "key" for first, second in itertools.pairwise(words))
    return follows or bool(_SECRET_WORDS & set(words))


def _option_in(before: Any) -> str:
    """The name of an option of a command line, whose value comes after it."""
    return before if isinstance(before, str) and before.startswith("-") and "=" not in before else ""


def _without_known_shapes(text: str) -> str:
    text = _ALONE_IN_URL.sub(HIDDEN, _IN_URL.sub(rf"\g<before>{HIDDEN}", text))
    return _ASSIGNED.sub(_without_secret, _IN_TEXT.sub(HIDDEN, text))


def _without_secret(assigned: re.Match[str]) -> str:
    """`WANDB_API_KEY=...`, as in an environment, a query or a line of a file."""
    name, between, value = assigned["name"], assigned["between"], assigned["value"]
    is_shown = not _names_a_secret(name) or HIDDEN in value
    return assigned[0] if is_shown else f"{name}{between}{HIDDEN}"
