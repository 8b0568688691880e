"""API keys and access tokens, made as Supabase makes them."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

TEN_YEARS_S = 10 * 365 * 24 * 3600
Signing = Literal["HS256", "RS256", "ES256"]


def _fresh(prefix: str) -> Any:
    return field(default_factory=lambda: f"{prefix}{secrets.token_urlsafe(24)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The secrets of a project and its API keys, the older ones, which are JWTs, and the newer ones, which are none."""

    jwt_secret: str
    """What PostgREST believes: a secret, or a set of public keys as JSON."""
    anon: str
    service: str
    publishable: str = _fresh("sb_publishable_")
    secret: str = _fresh("sb_secret_")
    signing: Signing = "HS256"
    private: str = ""
    """What signs, where that is not the secret itself."""

    @classmethod
    def new(cls, signing: Signing = "HS256") -> Keys:
        """With *signing* RS256 or ES256: a project whose users' tokens are signed asymmetrically, after the older keys
        were made with a shared secret."""
        shared = secrets.token_urlsafe(40)
        older = {"anon": sign(shared, "anon"), "service": sign(shared, "service_role")}
        if signing == "HS256":
            return cls(jwt_secret=shared, **older)
        private, public = _pair(signing)
        known = {
            "keys": [
                public,
                {"kty": "oct", "alg": "HS256", "k": jwt.utils.base64url_encode(shared.encode()).decode()},
            ]
        }
        return cls(jwt_secret=json.dumps(known), signing=signing, private=private, **older)

    @classmethod
    def kept_in(cls, path: Path) -> Keys:
        """Those in the file *path*; new ones, readable by its owner only, when there is none."""
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(json.dumps(asdict(cls.new())))
        return cls(**json.loads(path.read_text()))

    def token(self, role: str, **claims: Any) -> str:
        """A JWT of *role*, as the project signs now."""
        return sign(self.private or self.jwt_secret, role, algorithm=self.signing, **claims)

    def exchanged(self) -> dict[str, str]:
        """What the gateway puts in the place of each newer key: a token that PostgREST believes."""
        return {self.publishable: self.token("anon"), self.secret: self.token("service_role")}


def sign(
    key: str, role: str, *, algorithm: Signing = "HS256", expires_in_s: float = TEN_YEARS_S, **claims: Any
) -> str:
    """A JWT of *role*.  A negative *expires_in_s* gives one that has expired."""
    now_s = int(time.time())
    payload = {"iss": "supabase", "role": role, "iat": now_s, "exp": int(now_s + expires_in_s)}
    secret: Any = key if algorithm == "HS256" else load_pem_private_key(key.encode(), None)
    headers = None if algorithm == "HS256" else {"kid": KEY_ID}
    return jwt.encode(payload | claims, secret, algorithm=algorithm, headers=headers)


KEY_ID = "current"


def _pair(signing: Signing) -> tuple[str, dict[str, Any]]:
    """The private key, and the public one as a JWK."""
    key: Any = (
        ec.generate_private_key(ec.SECP256R1())
        if signing == "ES256"
        else rsa.generate_private_key(65537, 2048)
    )
    kind = ECAlgorithm if signing == "ES256" else RSAAlgorithm
    public = json.loads(kind.to_jwk(key.public_key()))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return pem, {**public, "kid": KEY_ID, "alg": signing, "use": "sig", "key_ops": ["verify"]}
