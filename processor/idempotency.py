"""Idempotency keys: the first reply of a POST is kept with its effect, and given again to whoever repeats it.

The reply is stored in the transaction of the effect, so that a key is never known without its effect, nor the other
way round. From the claim until that transaction has ended, an advisory lock makes the key "in flight".
"""

import hashlib
import json
from dataclasses import dataclass

from processor.context import Context
from processor.database import Pool
from processor.errors import Reply, idempotency_error, invalid_request, key_in_use
from processor.forms import JSON

LONGEST_KEY = 255


@dataclass(frozen=True)
class KeyUse:
    """One use of a key: whose, on which path, with which parameters."""

    account: str
    key: str
    path: str
    digest: str


@dataclass(frozen=True)
class Saved:
    """A stored reply; `body` is the text that went out first, `request_id` the request that got it."""

    status: int
    body: str
    request_id: str


def key_use(account: str, key: str, path: str, params: JSON) -> KeyUse:
    """Raises StripeError 400 for a key that is empty or longer than 255 characters."""
    if not key.strip() or len(key) > LONGEST_KEY:
        raise invalid_request(f"Idempotency-Key must be between 1 and {LONGEST_KEY} characters.")
    digest = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()
    return KeyUse(account, key, path, digest)


async def claim(context: Context, use: KeyUse) -> Saved | None:
    """Hold the key until its reply is stored; answer the stored reply, or None if the request is to be run.

    Raises StripeError 409 while another request holds the key, 400 if the key belongs to another request.
    """
    row = await context.lock("claim_key", use.account, use.key)
    if row["claimed"] and row["path"] is None:
        return None
    context.lost()
    if not row["claimed"]:
        raise key_in_use(use.key)
    if row["path"] != use.path:
        raise idempotency_error(
            "Keys for idempotent requests can only be used for the same endpoint they were first used for "
            f"('{use.path}' vs '{row['path']}'). Try using a key other than '{use.key}' if you meant to execute a "
            "different request."
        )
    if row["digest"] != use.digest:
        raise idempotency_error(
            "Keys for idempotent requests can only be used with the same parameters they were first used with. "
            f"Try using a key other than '{use.key}' if you meant to execute a different request."
        )
    return Saved(row["status"], row["body"], row["request_id"])


def save(context: Context, use: KeyUse, reply: Reply, request_id: str) -> None:
    """Keep `reply` under the claimed key; a key of more than 24 hours ago starts anew."""
    context.write(
        """
        INSERT INTO processor.idempotency_key (account, key, path, digest, request_id, status, body)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (account, key) DO UPDATE SET
            path = excluded.path, digest = excluded.digest, request_id = excluded.request_id,
            status = excluded.status, body = excluded.body, created_at = now()
        """,
        use.account,
        use.key,
        use.path,
        use.digest,
        request_id,
        reply.status,
        context.encoded(reply.body),
    )


async def prune(pool: Pool) -> None:
    """Drop keys that are at least 24 hours old."""
    await pool.execute("DELETE FROM processor.idempotency_key WHERE created_at <= now() - interval '24 hours'")
