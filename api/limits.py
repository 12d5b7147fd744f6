"""Rate limits: fixed windows counted in Valkey, so that all processes count together.

Without Valkey nothing is limited (that is logged): a shop that sells unlimited beats one that is closed. The address
is the peer's; `X-Forwarded-For` counts only where uvicorn was told which proxy to trust.
"""

import hashlib
import ipaddress
import json
from collections.abc import Awaitable, Callable
from typing import Literal

from fastapi import Request
from loguru import logger
from redis.exceptions import RedisError

from api.auth import authenticate, authenticate_if_any
from api.deps import Resources, get_resources
from models.errors import TooManyRequests

By = Literal["ip", "account", "user", "caller"]


def limit(name: str, times: int, seconds: int, by: By = "ip") -> Callable[[Request], Awaitable[None]]:
    """A dependency: at most `times` calls in `seconds` for one address ("ip"), one signed-in caller ("user"),
    the user or else the address ("caller"), or one `email` in the body ("account").

    Raises TooManyRequests with `retry_after`.
    """

    async def check(request: Request) -> None:
        resources = get_resources(request)
        if not resources.settings.limits_rates:
            return
        subject = await _subject(request, by)
        if subject is not None:
            await _spend(resources, _key(name, by, subject), times, seconds)

    return check


async def forgive(resources: Resources, name: str, email: str) -> None:
    """Forget the calls counted for this account: who knows the password is not guessing it."""
    if resources.settings.limits_rates:
        try:
            await resources.redis.delete(_key(name, "account", email.casefold()))
        except (RedisError, OSError) as error:
            logger.warning("A rate limit cannot be reset: {}", type(error).__name__)


async def _spend(resources: Resources, key: str, times: int, seconds: int) -> None:
    try:
        async with resources.redis.pipeline(transaction=True) as pipe:
            pipe.incr(key)
            pipe.expire(key, seconds, nx=True)
            pipe.ttl(key)
            used, _, left = await pipe.execute()
    except (RedisError, OSError) as error:
        logger.warning("Rates are not limited now: {}", type(error).__name__)
        return
    if used > times:
        raise TooManyRequests("Too many requests, slow down.", retry_after=max(left, 1))


async def _subject(request: Request, by: By) -> str | None:
    if by == "user":
        return str((await authenticate(request)).user_id)
    if by == "caller" and (user := await authenticate_if_any(request)) is not None:
        return str(user.user_id)
    if by in ("ip", "caller"):
        return _network(request.client.host) if request.client else None
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        return None  # the body will be refused anyway
    email = body.get("email") if isinstance(body, dict) else None
    return email.casefold() if isinstance(email, str) else None


def _network(host: str) -> str:
    """An IPv6 customer has a whole /64 to call from."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return host if address.version == 4 else str(ipaddress.ip_network(f"{address}/64", strict=False))


def _key(name: str, by: By, subject: str) -> str:
    """Hashed, so that no addresses lie about in Valkey."""
    return f"rate:{name}:{by}:{hashlib.sha256(subject.encode(errors='replace')).hexdigest()[:32]}"
