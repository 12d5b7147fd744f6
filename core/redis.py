"""Valkey, spoken to through the redis library. Losing it costs time, never correctness."""

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

TIMEOUT_SECONDS = 0.5


def make_redis(url: str) -> Redis:
    """A client of `redis://host:port/db` that answers text (`str`), connects when first used and fails fast.

    One immediate retry, because a connection of the pool may be one that a restart of the server has closed.
    """
    return Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        health_check_interval=30,
        retry=Retry(NoBackoff(), 1),
    )
