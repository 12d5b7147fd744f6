"""The invariants of the platform, each as SQL over one snapshot of every schema, the processor's books and Temporal.

`check` lays the books and the open workflows beside the schemas as temporary tables, so that each invariant is one
statement that answers what breaks it. An order in flight breaks nothing: its money may be held, its stock reserved, its
cart claimed. `story` says of each order how far it is:

- settled: it has ended (rejected, expired, cancelled), or is sold (confirmed and captured, no cancel asked for);
- was sold: it was confirmed once, and may have been cancelled after that;
- runs: a checkout or repair workflow of it is open;
- in flight: it runs, or is not settled and younger than reconciliation lets anything be.
"""

from dataclasses import dataclass
from typing import Literal

Source = Literal["database", "processor", "temporal"]


@dataclass(frozen=True)
class Invariant:
    """`counts` is a query for how much was looked at, `breaches` answers rows (subject, detail)."""

    name: str
    says: str
    of: str
    counts: str
    breaches: str
    needs: frozenset[Source] = frozenset({"database"})


EVERYTHING: frozenset[Source] = frozenset({"database", "processor", "temporal"})
WITH_TEMPORAL: frozenset[Source] = frozenset({"database", "temporal"})


def preparation(in_flight_seconds: float, open_seconds: float) -> str:
    """Temporary tables for what PostgreSQL does not hold, and the views that the invariants read.

    `in_flight_seconds`: how long nobody need look after an open order; `open_seconds`: how long a workflow may be open.
    """
    return f"""
    CREATE TEMPORARY TABLE book (
        intent_id text, order_id uuid, currency text, held bigint, captured bigint, refunded bigint, charges bigint);
    CREATE TEMPORARY TABLE run (
        workflow_id text, order_id uuid, started_at timestamptz, needs_attention boolean, problem text);

    CREATE TEMPORARY VIEW rule AS SELECT make_interval(secs => {open_seconds:f}) AS open_at_most;

    CREATE TEMPORARY VIEW story AS SELECT *, runs OR (NOT settled AND young) AS in_flight FROM (
        SELECT o.id, o.status, o.payment_status, o.total_amount AS total, o.currency, o.needs_attention, o.updated_at,
               s.ended, s.confirmed, s.was_sold, o.cancel_requested IS NOT NULL AS cancelling,
               s.ended OR (s.confirmed AND o.payment_status = 'captured' AND o.cancel_requested IS NULL) AS settled,
               o.updated_at > now() - make_interval(secs => {in_flight_seconds:f}) AS young,
               o.id IN (SELECT order_id FROM run) AS runs
        FROM orders.orders o CROSS JOIN LATERAL (
            SELECT o.status IN ('rejected', 'expired', 'cancelled') AS ended, o.status = 'confirmed' AS confirmed,
                   EXISTS (SELECT FROM orders.customer_event e
                           WHERE e.order_id = o.id AND e.event_key = 'order.confirmed') AS was_sold) s) x;

    -- what a person has taken upon themselves: a break resolved, or a step of which they say that they have done it
    CREATE TEMPORARY VIEW accepted AS
        SELECT order_id, closed_by AS actor, reason FROM orders.breaks
        WHERE state = 'resolved' AND order_id IS NOT NULL AND kind IN ('extra_charge', 'amount_mismatch',
            'money_without_order', 'payment_mismatch', 'hold_lapsed', 'refund_failed')
        UNION SELECT order_id, actor, reason FROM orders.audit WHERE action IN ('resolve refund', 'resolve void');
    CREATE TEMPORARY VIEW unaccepted AS SELECT * FROM story WHERE id NOT IN (SELECT order_id FROM accepted);

    CREATE TEMPORARY VIEW processor_money AS SELECT order_id, sum(held)::bigint AS held,
        sum(captured - refunded)::bigint AS taken, sum(charges)::bigint AS charges,
        upper(max(currency) FILTER (WHERE charges > 0)) AS currency,
        string_agg(intent_id, ', ' ORDER BY intent_id) AS intents
    FROM book GROUP BY order_id, CASE WHEN order_id IS NULL THEN intent_id END;

    CREATE TEMPORARY VIEW our_money AS SELECT t.order_id,
        coalesce(sum(e.amount_minor) FILTER (WHERE e.account = 'customer:authorized'), 0)::bigint AS held,
        coalesce(sum(e.amount_minor) FILTER (WHERE e.account = 'processor:receivable'), 0)::bigint AS taken
    FROM payments.ledger_transactions t JOIN payments.ledger_entries e ON e.txn_id = t.id GROUP BY t.order_id;
    """


STOCK = Invariant(
    name="I1",
    says="Nothing is oversold, and the stock ledger adds up to the stock",
    of="products",
    counts="SELECT count(*) FROM catalog.stock",
    breaches="""
    WITH booked AS (
        SELECT product_id, sum(on_hand_delta) AS on_hand, sum(reserved_delta) AS reserved,
               -coalesce(sum(on_hand_delta) FILTER (WHERE kind IN ('commit', 'restock')), 0) AS sold
        FROM catalog.stock_ledger GROUP BY product_id
    ), sold AS (
        SELECT product_id, sum(quantity) AS units
        FROM catalog.reservation_lines JOIN catalog.reservations USING (order_id)
        WHERE state = 'committed' GROUP BY product_id
    )
    SELECT 'product ' || product_id, format('%s on hand, %s reserved', on_hand, reserved)
    FROM catalog.stock WHERE reserved < 0 OR reserved > on_hand
    UNION ALL
    SELECT 'product ' || coalesce(s.product_id, b.product_id),
           format('stock says %s on hand and %s reserved, its ledger %s and %s', coalesce(s.on_hand, 0),
                  coalesce(s.reserved, 0), coalesce(b.on_hand, 0), coalesce(b.reserved, 0))
    FROM catalog.stock s FULL JOIN booked b USING (product_id)
    WHERE (coalesce(s.on_hand, 0), coalesce(s.reserved, 0)) <> (coalesce(b.on_hand, 0), coalesce(b.reserved, 0))
    UNION ALL
    SELECT 'product ' || coalesce(l.product_id, b.product_id),
           format('orders bought %s, the ledger says %s', coalesce(l.units, 0), coalesce(b.sold, 0))
    FROM sold l FULL JOIN booked b USING (product_id) WHERE coalesce(l.units, 0) <> coalesce(b.sold, 0)
    """,
)

RESERVED = Invariant(
    name="I2",
    says="What is reserved is what active reservations hold",
    of="reservations",
    counts="SELECT count(*) FROM catalog.reservations",
    breaches="""
    WITH held AS (
        SELECT product_id, sum(quantity) AS units
        FROM catalog.reservation_lines JOIN catalog.reservations USING (order_id)
        WHERE state = 'active' GROUP BY product_id
    )
    SELECT 'product ' || coalesce(s.product_id, h.product_id),
           format('%s reserved, active reservations hold %s', coalesce(s.reserved, 0), coalesce(h.units, 0))
    FROM catalog.stock s FULL JOIN held h USING (product_id) WHERE coalesce(s.reserved, 0) <> coalesce(h.units, 0)
    """,
)

MONEY = Invariant(
    name="I3",
    says="The processor holds what an open order may owe, took what a sold one costs, and nothing else",
    of="payment intents",
    counts="SELECT count(*) FROM book",
    needs=frozenset({"database", "processor"}),
    # The books are read after the snapshot; what is due to a settled order does not change in between.
    breaches="""
    SELECT coalesce(m.order_id::text, m.intents), format('%s live charges (%s)', m.charges, m.intents)
    FROM processor_money m WHERE m.charges > 1 AND NOT EXISTS (SELECT FROM accepted a WHERE a.order_id = m.order_id)
    UNION ALL
    SELECT coalesce(m.order_id::text, m.intents),
           format('%s held and %s taken for an order that does not exist (%s)', m.held, m.taken, m.intents)
    FROM processor_money m LEFT JOIN story s ON s.id = m.order_id WHERE s.id IS NULL AND (m.held <> 0 OR m.taken <> 0)
    UNION ALL
    SELECT s.id::text, format('%s, payment %s, total %s: the processor holds %s and took %s %s', s.status,
                              s.payment_status, coalesce(s.total, 0), m.held, m.taken, m.currency)
    FROM unaccepted s LEFT JOIN LATERAL (
        SELECT coalesce(max(held), 0) AS held, coalesce(max(taken), 0) AS taken, max(currency) AS currency
        FROM processor_money WHERE order_id = s.id
    ) m ON true
    WHERE CASE
        WHEN s.ended THEN m.held <> 0 OR m.taken <> 0
        WHEN s.settled THEN m.held <> 0 OR m.taken <> s.total OR m.currency <> s.currency
        WHEN s.confirmed THEN m.currency <> s.currency OR NOT ((m.held, m.taken) IN ((s.total, 0), (0, s.total))
                                                               OR (s.cancelling AND (m.held, m.taken) = (0, 0)))
        ELSE m.taken <> 0 OR (m.held <> 0 AND m.held IS DISTINCT FROM s.total) END
    """,
)

LOOKED_AFTER = Invariant(
    name="I4",
    says="Every order has ended, is sold, or somebody looks after it",
    of="orders",
    counts="SELECT count(*) FROM story",
    needs=WITH_TEMPORAL,
    breaches="""
    SELECT id::text, format('%s, payment %s, untouched since %s UTC: no open workflow, no attention', status,
                            payment_status, to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'))
    FROM story WHERE NOT settled AND NOT in_flight AND NOT needs_attention
    """,
)

LEDGER = Invariant(
    name="I5",
    says="Every ledger transaction sums to zero, and our ledger is the processor's books",
    of="ledger transactions",
    counts="SELECT count(*) FROM payments.ledger_transactions",
    needs=EVERYTHING,
    breaches="""
    SELECT t.order_id::text, format('%s sums to %s %s', t.key, sum(e.amount_minor), e.currency)
    FROM payments.ledger_transactions t JOIN payments.ledger_entries e ON e.txn_id = t.id
    GROUP BY t.id, t.order_id, t.key, e.currency HAVING sum(e.amount_minor) <> 0
    UNION ALL
    SELECT t.order_id::text, t.key || ' has no entries' FROM payments.ledger_transactions t
    WHERE NOT EXISTS (SELECT FROM payments.ledger_entries e WHERE e.txn_id = t.id)
    UNION ALL
    SELECT order_id::text, format('our ledger: %s held, %s taken; the processor: %s held, %s taken',
           coalesce(o.held, 0), coalesce(o.taken, 0), coalesce(m.held, 0), coalesce(m.taken, 0))
    FROM our_money o FULL JOIN (SELECT * FROM processor_money WHERE order_id IS NOT NULL) m USING (order_id)
    LEFT JOIN story s ON s.id = order_id
    WHERE NOT EXISTS (SELECT FROM accepted a WHERE a.order_id = coalesce(o.order_id, m.order_id))
      AND (coalesce(o.held, 0), coalesce(o.taken, 0)) <> (coalesce(m.held, 0), coalesce(m.taken, 0))
      AND (s.id IS NULL OR s.settled OR NOT (s.in_flight OR s.needs_attention))
    UNION ALL
    SELECT s.id::text, format('the order is %s, payment %s; the payments service says %s', s.status, s.payment_status,
                              coalesce(p.status, 'nothing'))
    FROM unaccepted s LEFT JOIN payments.payments p ON p.order_id = s.id
    WHERE s.settled AND CASE WHEN s.ended THEN p.status IN ('authorized', 'captured', 'unknown')
                                               OR s.payment_status IN ('authorized', 'captured', 'unknown')
                             ELSE p.status IS DISTINCT FROM 'captured' END
    """,
)

EVENTS = Invariant(
    name="I6",
    says="A customer's events are numbered 1..n, agree with the order, and none changes an order that has ended",
    of="events",
    counts="SELECT count(*) FROM orders.customer_event",
    breaches="""
    SELECT 'customer ' || coalesce(e.customer_id, c.customer_id),
           format('%s events numbered %s to %s, counter at %s', coalesce(e.n, 0), e.first, e.last, c.last_seq)
    FROM (SELECT customer_id, count(*) AS n, min(seq) AS first, max(seq) AS last
          FROM orders.customer_event GROUP BY customer_id) e
    FULL JOIN orders.customer_counters c USING (customer_id)
    WHERE (coalesce(e.n, 0), coalesce(e.last, 0), coalesce(e.first, 1))
          IS DISTINCT FROM (c.last_seq, c.last_seq, 1::bigint)
    UNION ALL
    SELECT e.order_id::text, format('%s (seq %s) after %s', e.type, e.seq, ending.type)
    FROM orders.customer_event ending JOIN orders.customer_event e
      ON e.order_id = ending.order_id AND e.customer_id = ending.customer_id AND e.seq > ending.seq
    WHERE ending.type IN ('order.rejected', 'order.expired', 'order.cancelled')
      AND (e.data ->> 'status' IS DISTINCT FROM substr(ending.type, 7)
           OR e.type IN ('order.confirmed', 'order.rejected', 'order.expired', 'order.cancelled'))
    UNION ALL
    SELECT o.id::text, format('the order is %s, payment %s; its last event says %s, payment %s', o.status,
                              o.payment_status, coalesce(e.status, 'nothing'), coalesce(e.payment_status, 'nothing'))
    FROM orders.orders o LEFT JOIN (
        SELECT DISTINCT ON (order_id) order_id, data ->> 'status' AS status, data ->> 'paymentStatus' AS payment_status
        FROM orders.customer_event ORDER BY order_id, seq DESC
    ) e ON e.order_id = o.id
    WHERE (e.status, e.payment_status) IS DISTINCT FROM (o.status, o.payment_status)
    """,
)

CARTS = Invariant(
    name="I7",
    says="A cart's lines are taken when the order is confirmed, given back when it ends otherwise",
    of="claims",
    counts="SELECT count(*) FROM carts.claims",
    needs=WITH_TEMPORAL,
    breaches="""
    SELECT coalesce(s.id, k.order_id)::text, format('the order is %s, its claim on the cart %s',
           coalesce(s.status, 'unknown'), coalesce(k.state, 'missing'))
    FROM story s FULL JOIN carts.claims k ON k.order_id = s.id
    WHERE CASE
        WHEN s.id IS NULL THEN k.state <> 'released'
        WHEN s.ended THEN k.state IS DISTINCT FROM (CASE WHEN s.was_sold THEN 'consumed' ELSE 'released' END)
        WHEN s.confirmed THEN k.state IS NULL OR k.state = 'released' OR (k.state = 'active' AND NOT s.in_flight)
        ELSE k.state = 'consumed' OR (k.state = 'released' AND NOT (s.in_flight OR s.needs_attention)) END
    """,
)

RESERVATIONS = Invariant(
    name="I8",
    says="Stock is reserved for orders under way only, and sold to confirmed ones only",
    of="reservations",
    counts="SELECT count(*) FROM catalog.reservations",
    needs=WITH_TEMPORAL,
    breaches="""
    SELECT coalesce(s.id, r.order_id)::text,
           format('the order is %s, its reservation %s', coalesce(s.status, 'unknown'), coalesce(r.state, 'missing'))
               || CASE WHEN r.state = 'active' AND r.expires_at < now() THEN ' and expired' ELSE '' END
               || CASE WHEN r.state = 'active' AND NOT s.runs THEN ', no workflow runs' ELSE '' END
    FROM story s FULL JOIN catalog.reservations r ON r.order_id = s.id
    WHERE CASE
        WHEN s.id IS NULL THEN r.state <> 'released'
        WHEN s.ended THEN r.state <> (CASE WHEN s.was_sold THEN 'restocked' ELSE 'released' END)
        WHEN s.confirmed THEN r.state IS NULL OR r.state NOT IN ('committed', 'restocked')
                              OR (r.state = 'restocked' AND NOT s.cancelling)
        ELSE r.state = 'active' AND NOT s.in_flight END
    UNION ALL
    SELECT order_id::text, format('product %s: %s sold, %s ordered', product_id, coalesce(sold.quantity, 0),
                                  coalesce(ordered.quantity, 0))
    FROM (SELECT l.* FROM catalog.reservation_lines l JOIN catalog.reservations r USING (order_id)
          WHERE r.state IN ('committed', 'restocked')) sold
    FULL JOIN (SELECT l.* FROM orders.order_lines l JOIN catalog.reservations r USING (order_id)
               WHERE r.state IN ('committed', 'restocked')) ordered USING (order_id, product_id)
    WHERE sold.quantity IS DISTINCT FROM ordered.quantity
    """,
)

MESSAGES = Invariant(
    name="I9",
    says="A customer is told once, and told when the order is sold",
    of="messages",
    counts="SELECT count(*) FROM notifications.messages",
    needs=WITH_TEMPORAL,
    breaches="""
    SELECT order_id::text, format('%s messages %s by %s', count(*), kind, channel)
    FROM notifications.messages GROUP BY order_id, kind, channel HAVING count(*) > 1
    UNION ALL
    SELECT s.id::text, 'sold, and the customer was never told' FROM story s
    WHERE s.settled AND s.confirmed AND NOT s.runs AND NOT EXISTS (
        SELECT FROM notifications.messages m WHERE m.order_id = s.id AND m.kind = 'order.confirmed')
    """,
)

WORKFLOWS = Invariant(
    name="I10",
    says="No workflow is broken, or open for long unless somebody was told",
    of="open workflows",
    counts="SELECT count(*) FROM run JOIN story ON story.id = run.order_id",
    needs=WITH_TEMPORAL,
    breaches="""
    SELECT run.order_id::text, format('its %s is open since %s UTC', split_part(run.workflow_id, '-', 1),
                                      to_char(run.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'))
    FROM run JOIN story s ON s.id = run.order_id CROSS JOIN rule
    WHERE run.started_at < now() - rule.open_at_most AND NOT (run.needs_attention OR s.needs_attention)
    UNION ALL
    SELECT run.order_id::text,
           format('its %s fails again and again: %s', split_part(run.workflow_id, '-', 1), run.problem)
    FROM run JOIN story s ON s.id = run.order_id WHERE run.problem <> ''
    """,
)

INVARIANTS = (
    *(STOCK, RESERVED, MONEY, LOOKED_AFTER, LEDGER),
    *(EVENTS, CARTS, RESERVATIONS, MESSAGES, WORKFLOWS),
)
