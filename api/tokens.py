"""Access tokens: JWTs of a few minutes, signed by the users service (Ed25519), checked anywhere with the public half.

Nothing but EdDSA is accepted and the header may say nothing but what we write, so that no `alg`, `crit`, `jku` or
foreign `kid` can steer the check.
"""

import json
import os
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from jwt.algorithms import OKPAlgorithm

from core.settings import Settings
from models.errors import Unauthenticated
from models.types import Role, Service

ISSUER = AUDIENCE = "mercato"
ALGORITHM = "EdDSA"
LEEWAY_SECONDS = 2
MAX_TOKEN_CHARS = 2048
REFETCH_SECONDS = 10  # a stranger's `kid` must not make us ask for keys with every request
REQUIRED = ["sub", "sid", "role", "aud", "iss", "iat", "exp", "jti"]

Jwks = dict[str, Any]


@dataclass(frozen=True)
class Claims:
    user_id: UUID
    session_id: UUID
    role: Role


class TokenSigner:
    """Held by the users service only."""

    def __init__(self, key: Ed25519PrivateKey, lifetime_seconds: int) -> None:
        self._key = key
        self._lifetime = lifetime_seconds
        self.jwks: Jwks = {"keys": [public_jwk(key.public_key())]}
        self._kid: str = self.jwks["keys"][0]["kid"]

    def sign(self, user_id: UUID, session_id: UUID, role: Role) -> str:
        now = int(time.time())
        claims = {
            "sub": str(user_id),
            "sid": str(session_id),
            "role": role.value,
            "aud": AUDIENCE,
            "iss": ISSUER,
            "iat": now,
            "exp": now + self._lifetime,
            "jti": token_hex(16),
        }
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": self._kid})


class TokenVerifier:
    """Checks signature and claims. Keys are given, or fetched from the users service when first needed."""

    def __init__(self, jwks: Jwks | None = None, fetch: Callable[[], Awaitable[Jwks]] | None = None) -> None:
        self._keys = _keys_of(jwks) if jwks else {}
        self._fetch = fetch
        self._fetched_at = float("-inf")

    async def verify(self, token: str) -> Claims:
        """Raises Unauthenticated for anything but a token of ours that is valid now, Unavailable without a key."""
        try:
            if len(token) > MAX_TOKEN_CHARS:
                raise jwt.InvalidTokenError("too long")
            kid = _checked_kid(jwt.get_unverified_header(token))
            claims = jwt.decode(
                token,
                await self._key(kid),
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=LEEWAY_SECONDS,
                options={"require": REQUIRED, "strict_aud": True},
            )
            return Claims(UUID(claims["sub"]), UUID(claims["sid"]), Role(claims["role"]))
        except jwt.ExpiredSignatureError as error:
            raise Unauthenticated("The access token has expired.", code="token_expired") from error
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
            raise Unauthenticated("The access token is not valid.") from error

    async def _key(self, kid: str) -> Ed25519PublicKey:
        if kid not in self._keys and self._fetch and time.monotonic() - self._fetched_at >= REFETCH_SECONDS:
            self._keys = _keys_of(await self._fetch())
            self._fetched_at = time.monotonic()
        if kid not in self._keys:
            raise jwt.InvalidTokenError("signed with a key that is not ours")
        return self._keys[kid]


def make_signer(settings: Settings) -> TokenSigner:
    """From `MERCATO_SIGNING_KEY`, else (never in production) from a key file made on first use.

    Raises ValueError when the key is missing in production or is no Ed25519 key.
    """
    pem = settings.signing_key.get_secret_value()
    if not pem and settings.environment == "production":
        raise ValueError("MERCATO_SIGNING_KEY must be set where the users service runs")
    key = load_pem_private_key(pem.encode() if pem else _development_key(settings.data_dir), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("MERCATO_SIGNING_KEY must be an Ed25519 key")
    return TokenSigner(key, settings.access_token_seconds)


def make_verifier(
    settings: Settings, services: Collection[Service], fetch: Callable[[], Awaitable[Jwks]]
) -> TokenVerifier:
    """`fetch` (UsersClient.keys) is asked only where neither a key is set nor the users service runs."""
    if settings.verify_key:
        key = load_pem_public_key(settings.verify_key.encode())
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("MERCATO_VERIFY_KEY must be an Ed25519 public key")
        return TokenVerifier({"keys": [public_jwk(key)]})
    if settings.signing_key.get_secret_value() or Service.USERS in services:
        return TokenVerifier(make_signer(settings).jwks)
    return TokenVerifier(fetch=fetch)


def public_jwk(key: Ed25519PublicKey) -> dict[str, str]:
    """The key as a JWK whose `kid` follows from the key itself."""
    jwk = json.loads(OKPAlgorithm.to_jwk(key))
    return {"kty": jwk["kty"], "crv": jwk["crv"], "x": jwk["x"], "kid": jwk["x"][:16], "alg": ALGORITHM, "use": "sig"}


def _keys_of(jwks: Jwks) -> dict[str, Ed25519PublicKey]:
    keys: dict[str, Ed25519PublicKey] = {}
    for jwk in jwks["keys"]:
        key = OKPAlgorithm.from_jwk(jwk)
        if isinstance(key, Ed25519PublicKey):
            keys[str(jwk["kid"])] = key
    return keys


def _checked_kid(header: dict[str, Any]) -> str:
    if header.keys() != {"alg", "typ", "kid"} or header["alg"] != ALGORITHM or header["typ"] != "JWT":
        raise jwt.InvalidTokenError("not a header we write")
    return str(header["kid"])


def _development_key(data_dir: Path) -> bytes:
    """The key file, made once: of several processes that start together the first link wins, the others read it."""
    path = data_dir / "signing.pem"
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        draft = data_dir / f".signing-{token_hex(8)}.pem"
        draft.touch(mode=0o600)
        draft.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_bytes()
