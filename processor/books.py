"""The processor's own double-entry book. Every transaction sums to zero (the database checks) and is never changed.

authorize a:  hold +a, credit_limit -a            void a:    hold -a, credit_limit +a
capture n of a held:  hold -a, credit_limit +a, cardholder -n, merchant +n
refund r:     merchant -r, cardholder +r
"""

from typing import Any

from processor.context import Context
from processor.database import Pool
from processor.ids import new_id

Legs = tuple[tuple[str, int], ...]


def authorize(context: Context, charge: dict[str, Any]) -> str:
    """Hold the charge's amount on the card. Of a charge, writers read id, intent, currency and amount.

    They answer the transaction's id.
    """
    amount = charge["amount"]
    return _record(context, charge, "authorize", (("hold", amount), ("credit_limit", -amount)))


def capture(context: Context, charge: dict[str, Any], taken: int) -> str:
    """Take `taken` (minor units) and let go of the whole hold."""
    held = charge["amount"]
    legs = (("hold", -held), ("credit_limit", held), ("cardholder", -taken), ("merchant", taken))
    return _record(context, charge, "capture", legs)


def void(context: Context, charge: dict[str, Any]) -> str:
    """Let go of the hold."""
    amount = charge["amount"]
    return _record(context, charge, "void", (("hold", -amount), ("credit_limit", amount)))


def refund(context: Context, charge: dict[str, Any], amount: int) -> str:
    """Give `amount` (minor units) back."""
    return _record(context, charge, "refund", (("merchant", -amount), ("cardholder", amount)))


def _record(context: Context, charge: dict[str, Any], kind: str, legs: Legs) -> str:
    txn = new_id("txn")
    context.write(
        """
        INSERT INTO processor.entry (txn, kind, account, payment_intent, charge, currency, ledger, amount)
        SELECT $1, $2, $3, $4, $5, $6, ledger, amount FROM unnest($7::text[], $8::bigint[]) AS leg (ledger, amount)
        """,
        txn,
        kind,
        context.account,
        charge["payment_intent"],
        charge["id"],
        charge["currency"],
        [ledger for ledger, _ in legs],
        [amount for _, amount in legs],
    )
    return txn


async def summary(
    pool: Pool, account: str, *, order_id: str | None, after: str | None, limit: int
) -> list[dict[str, Any]]:
    """Per intent, oldest first, what the entries say: open hold, captured, refunded, live and tried charges.

    A charge is live while it holds money or kept some. `after` is the last intent id of the page before.
    """
    rows = await pool.fetch(
        """
        WITH page AS (
            SELECT id, seq, metadata, document FROM processor.payment_intent
            WHERE account = $1
              AND ($2::text IS NULL OR metadata @> jsonb_build_object('order_id', $2::text))
              AND seq > coalesce((SELECT seq FROM processor.payment_intent WHERE id = $3 AND account = $1), -1)
            ORDER BY seq LIMIT $4
        ), by_charge AS (
            SELECT payment_intent, charge,
                   coalesce(sum(amount) FILTER (WHERE ledger = 'hold'), 0)::bigint AS held,
                   coalesce(sum(amount) FILTER (WHERE ledger = 'merchant' AND kind = 'capture'), 0)::bigint AS captured,
                   coalesce(-sum(amount) FILTER (WHERE ledger = 'merchant' AND kind = 'refund'), 0)::bigint AS refunded
            FROM processor.entry WHERE payment_intent IN (SELECT id FROM page) GROUP BY payment_intent, charge
        )
        SELECT page.id, page.metadata, page.document ->> 'status' AS status, page.document ->> 'currency' AS currency,
               (page.document ->> 'amount')::bigint AS amount,
               coalesce(sum(held), 0)::bigint AS amount_authorized_open,
               coalesce(sum(captured), 0)::bigint AS captured,
               coalesce(sum(refunded), 0)::bigint AS refunded,
               count(charge) FILTER (WHERE held > 0 OR captured > refunded) AS charges,
               (SELECT count(*) FROM processor.charge WHERE payment_intent = page.id) AS attempts
        FROM page LEFT JOIN by_charge ON by_charge.payment_intent = page.id
        GROUP BY page.id, page.seq, page.metadata, page.document ORDER BY page.seq
        """,
        account,
        order_id,
        after,
        limit,
    )
    return [dict(row) for row in rows]
