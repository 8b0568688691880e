"""Secrets, covered wherever they are shown: in specs by the names they stand under, in texts by value and by shape.

In a text each character of a secret becomes one that is as long in UTF-8: offsets into a log stay what they are.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from scheduler.core.model import JobSpec

HIDDEN = "••••••"
"""Instead of a value in a spec."""
REACH_CHARS = 4096
"""A secret in a text is found when so much of what stands around it is there too."""

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

# Each begins where a word does and has a longest length, so that no text takes long.
_IN_URL = re.compile(
    r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,20}://(?:[^\s/:@]{0,200}:(?P<password>[^\s/@]{1,500})|(?P<alone>[^\s/:@]{1,500}))@",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9_-])(?:hf_[A-Za-z0-9]{20,}|sk-(?=[A-Za-z_-]{0,100}[0-9])[A-Za-z0-9_-]{20,}"
    r"|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,}|glpat-[A-Za-z0-9_-]{20,}|xox[abprs]-[A-Za-z0-9-]{20,}"
    r"|AKIA[0-9A-Z]{16}(?![0-9A-Z])|sb_secret_[A-Za-z0-9_-]{10,}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*)"
    r"|(?<=[Bb]earer )(?=[A-Za-z._~+/-]{0,100}[0-9])[A-Za-z0-9._~+/-]{8,}=*"
)
_ENVIRONMENT = re.compile(
    r"(?<![A-Za-z0-9_])(?P<name>[A-Z][A-Z0-9_]{0,80})=(?P<quote>[\"']?)(?P<value>[^\s\"']{4,500})"
)
_ASSIGNED = re.compile(
    r"(?<![A-Za-z0-9_])(?P<name>[A-Za-z][A-Za-z0-9_.-]{0,80})(?P<between>=|: ?(?!//))"
    r"(?P<value>[^\s&;,'\"=][^\s&;,'\"]*)"
)
_SHORTEST = 6
_MOST_VALUES = 100
_COVER = "*·•🞄"
"""One for each length in UTF-8."""


@dataclass(frozen=True, slots=True)
class Redactor:
    """Covers secrets in the texts of one job.  Ordinary words stay: a value that is one is not looked for."""

    values: tuple[str, ...] = ()
    """What the job's own spec has under the name of a secret, the longest first."""

    @classmethod
    def of(cls, spec: JobSpec) -> Redactor:
        found = {one for part in (spec.config, spec.labels) for one in _secrets_in(part) if _is_telling(one)}
        return cls(tuple(sorted(found, key=len, reverse=True)[:_MOST_VALUES]))

    def text(self, text: str) -> str:
        """*text* itself where nothing is to be covered."""
        for value in self.values:
            if value in text:
                text = text.replace(value, covered(value))
        if "://" in text:
            text = _IN_URL.sub(_cover_in_url, text)
        if "=" in text:
            text = _ENVIRONMENT.sub(_cover_in_environment, text)
        return _TOKEN.sub(lambda found: covered(found[0]), text)

    def between(self, before: str, text: str, after: str) -> str:
        """*text*, as it is covered where *before* and *after* stand around it."""
        whole = self.text(before + text + after)
        return whole[len(before) : len(before) + len(text)]

    def spec(self, spec: JobSpec) -> JobSpec:
        """As it may be shown.  What it hides cannot be had back from it."""
        return replace(
            spec, config=self._hidden(masked(spec.config)), labels=self._hidden(masked(spec.labels))
        )

    def _hidden(self, value: Any) -> Any:
        """Also where a secret stands under another name."""
        if not self.values:
            return value
        if isinstance(value, Mapping):
            return {key: self._hidden(one) for key, one in cast("Mapping[Any, Any]", value).items()}
        if isinstance(value, list):
            return [self._hidden(one) for one in cast("list[Any]", value)]
        if isinstance(value, str):
            for secret in self.values:
                value = value.replace(secret, HIDDEN)
        return value


def covered(secret: str) -> str:
    """As many characters, and as many bytes."""
    return "".join(_COVER[len(letter.encode("utf-8", "surrogatepass")) - 1] for letter in secret)


def masked(value: Any, name: str = "") -> Any:
    """*value* with every secret in it replaced; *name* is the key it stands under."""
    if isinstance(value, Mapping):
        return {key: masked(one, str(key)) for key, one in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [masked(one, under) for one, under in _named(cast("Sequence[Any]", value), name)]
    if value in (None, "") or isinstance(value, bool):
        return value
    if _names_a_secret(name):
        return HIDDEN
    return _without_known_shapes(value) if isinstance(value, str) else value


def _secrets_in(value: Any, name: str = "") -> Iterator[str]:
    """What `masked` hides of it by its name."""
    if isinstance(value, Mapping):
        for key, one in cast("Mapping[Any, Any]", value).items():
            yield from _secrets_in(one, str(key))
    elif isinstance(value, list | tuple):
        for one, under in _named(cast("Sequence[Any]", value), name):
            yield from _secrets_in(one, under)
    elif isinstance(value, str) and _names_a_secret(name):
        yield value


def _named(values: Sequence[Any], name: str) -> Iterator[tuple[Any, str]]:
    """Each with the name it stands under: that of the list, or the option of a command line before it."""
    for before, one in zip(["", *values], values, strict=False):
        yield one, _option_in(before) or name


def _is_telling(value: str) -> bool:
    """Whether it would be found only where it was meant: `none` or `training` stands everywhere."""
    return len(value) >= 12 or (len(value) >= _SHORTEST and not value.isalpha() and not value.isdigit())


def _names_a_secret(name: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(name)]
    if "token" in words and _SPECIAL_TOKENS & set(words):
        return False
    follows = any(first in _KEYS_OF and second == "key" for first, second in itertools.pairwise(words))
    return follows or bool(_SECRET_WORDS & set(words))


def _option_in(before: Any) -> str:
    """The name of an option of a command line, whose value comes after it."""
    return before if isinstance(before, str) and before.startswith("-") and "=" not in before else ""


def _cover_in_url(found: re.Match[str]) -> str:
    secret = _secret_of_url(found)
    return f"{found[0][: -len(secret) - 1]}{covered(secret)}@"


def _hide_in_url(found: re.Match[str]) -> str:
    return f"{found[0][: -len(_secret_of_url(found)) - 1]}{HIDDEN}@"


def _secret_of_url(found: re.Match[str]) -> str:
    """The password; or what stands alone, a token without a user beside it.  The `@` follows."""
    return found["alone"] if found["password"] is None else found["password"]


def _cover_in_environment(found: re.Match[str]) -> str:
    """`WANDB_API_KEY=...`; in small letters it may be anything: `token=the`."""
    if not _names_a_secret(found["name"]):
        return found[0]
    return found[0][: -len(found["value"])] + covered(found["value"])


def _without_known_shapes(text: str) -> str:
    if "://" in text:
        text = _IN_URL.sub(_hide_in_url, text)
    return _ASSIGNED.sub(_without_secret, _TOKEN.sub(HIDDEN, text))


def _without_secret(assigned: re.Match[str]) -> str:
    """`WANDB_API_KEY=...`, as in an environment, a query or a line of a file."""
    name, between, value = assigned["name"], assigned["between"], assigned["value"]
    is_shown = not _names_a_secret(name) or HIDDEN in value
    return assigned[0] if is_shown else f"{name}{between}{HIDDEN}"
