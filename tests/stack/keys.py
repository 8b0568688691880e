"""API keys and access tokens, signed as Supabase signs them."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jwt

TEN_YEARS_S = 10 * 365 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The secret of a project and its two API keys."""

    jwt_secret: str
    anon: str
    service: str

    @classmethod
    def new(cls) -> Keys:
        secret = secrets.token_urlsafe(40)
        return cls(jwt_secret=secret, anon=sign(secret, "anon"), service=sign(secret, "service_role"))

    @classmethod
    def kept_in(cls, path: Path) -> Keys:
        """Those in the file *path*; new ones, readable by its owner only, when there is none."""
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(json.dumps(asdict(cls.new())))
        return cls(**json.loads(path.read_text()))


def sign(jwt_secret: str, role: str, *, expires_in_s: float = TEN_YEARS_S, **claims: Any) -> str:
    """A JWT of *role*.  A negative *expires_in_s* gives one that has expired."""
    now_s = int(time.time())
    payload = {"iss": "supabase", "role": role, "iat": now_s, "exp": int(now_s + expires_in_s)}
    return jwt.encode(payload | claims, jwt_secret, algorithm="HS256")
