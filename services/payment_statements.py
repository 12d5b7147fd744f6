"""What usually happens to a payment, each in one round trip (docs/adr/0009-one-statement-a-step.md).

Where the payment stands otherwise than usual they change nothing, and services/payment_records.py locks the row and
looks. The guards are the same.
"""

from sqlalchemy import text

from models.payments import LedgerKind, Payment
from services import ledger

OPEN = text("""
    WITH payment AS (
        INSERT INTO payments.payments (order_id, amount, currency) VALUES (:order_id, :amount, :currency)
        ON CONFLICT DO NOTHING RETURNING order_id
    )
    INSERT INTO payments.attempts (order_id, attempt, request_key, payment_method_id)
    SELECT order_id, :attempt, :request_key, :payment_method_id FROM payment RETURNING order_id
""")

BEGIN_FIRST_TRY = text("""
    WITH payment AS (
        UPDATE payments.payments SET intent_id = coalesce(intent_id, :intent_id)
        WHERE order_id = :order_id AND status = 'none' AND void_requested_at IS NULL
        RETURNING order_id, intent_id
    )
    UPDATE payments.attempts a SET tries = 1, confirm_key = :key FROM payment p
    WHERE a.order_id = p.order_id AND a.attempt = :attempt AND a.state = 'pending' AND a.tries = 0
      AND NOT EXISTS (
          SELECT FROM payments.processor_keys k WHERE k.order_id = p.order_id AND k.operation = :operation
      )
    RETURNING p.intent_id
""")

# `others` are locked to be seen as they are after the wait for the payment: one of them may have been tried meanwhile.
HOLD = text(f"""
    WITH payment AS (
        UPDATE payments.payments SET status = 'authorized', updated_at = now()
        WHERE order_id = :order_id AND status IN ('none', 'declined', 'unknown')
          AND voided_at IS NULL AND void_requested_at IS NULL
        RETURNING order_id, intent_id, amount, currency
    ), holds AS (
        UPDATE payments.attempts a SET
            state = 'authorized', decline_code = NULL, charge_id = :charge_id, answered_at = clock_timestamp()
        FROM payment p WHERE a.order_id = p.order_id AND a.attempt = :attempt
    ), others AS MATERIALIZED (
        SELECT a.order_id, a.attempt, a.tries, a.state FROM payment p JOIN payments.attempts a USING (order_id)
        WHERE a.attempt <> :attempt FOR UPDATE OF a
    ), superseded AS (
        UPDATE payments.attempts a SET state = 'declined', decline_code = 'superseded', answered_at = clock_timestamp()
        FROM others o
        WHERE a.order_id = o.order_id AND a.attempt = o.attempt AND o.tries > 0
          AND o.state IN ('pending', 'unknown', 'action_required')
    ), {ledger.booking(LedgerKind.AUTHORIZE, "payment")}
    SELECT intent_id, amount, currency FROM payment
""")

TAKE = text(f"""
    WITH payment AS (
        UPDATE payments.payments SET status = 'captured', void_requested_at = NULL, updated_at = now()
        WHERE order_id = :order_id AND status = 'authorized'
        RETURNING *
    ), {ledger.booking(LedgerKind.CAPTURE, "payment")}
    SELECT * FROM payment
""").columns(*Payment.__table__.columns)  # type: ignore[attr-defined]

WITH_KEY = text("""
    SELECT p.*, k.number AS key_number FROM payments.payments p
    LEFT JOIN payments.processor_keys k ON k.order_id = p.order_id AND k.operation = :operation
    WHERE p.order_id = :order_id
""")
