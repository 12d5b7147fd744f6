"""Refunds, cards that wait for their bank to see the shopper, and what the processor tells by webhook."""

from models.migrations.sql import run_script

revision = "payments_0002"
down_revision = "payments_0001"


def upgrade() -> None:
    run_script(
        """
        ALTER TABLE payments.payments
            DROP CONSTRAINT payments_status_check,
            ADD CONSTRAINT payments_status_check CHECK
                (status IN ('none', 'authorized', 'captured', 'declined', 'unknown', 'voided', 'refunded'));
        ALTER TABLE payments.attempts
            DROP CONSTRAINT attempts_state_check,
            ADD CONSTRAINT attempts_state_check CHECK
                (state IN ('pending', 'authorized', 'declined', 'unknown', 'action_required'));

        -- As before, and: what was taken may be refunded, and then that is its end.
        CREATE OR REPLACE TRIGGER no_change_of_facts BEFORE UPDATE ON payments.payments FOR EACH ROW WHEN (
                (OLD.amount IS NOT NULL AND (NEW.amount, NEW.currency) IS DISTINCT FROM (OLD.amount, OLD.currency))
                OR (OLD.intent_id IS NOT NULL AND NEW.intent_id IS DISTINCT FROM OLD.intent_id)
                OR (OLD.status IN ('voided', 'refunded') AND NEW.status <> OLD.status)
                OR (OLD.status = 'captured' AND NEW.status NOT IN ('captured', 'refunded'))
            ) EXECUTE FUNCTION payments.refuse_change();

        -- `order_id` is the one of our payment with this intent; null: we know of no such intent.
        -- `handled_at`: whoever waits for it has been told, or nobody need be.
        CREATE TABLE payments.processor_events (
            event_id    text PRIMARY KEY,
            type        text NOT NULL,
            intent_id   text,
            order_id    uuid,
            created_at  timestamptz NOT NULL,
            signatures  text[] NOT NULL,
            deliveries  integer NOT NULL DEFAULT 1,
            received_at timestamptz NOT NULL DEFAULT now(),
            handled_at  timestamptz
        );
        CREATE INDEX processor_events_unhandled ON payments.processor_events (received_at) WHERE handled_at IS NULL;
        CREATE INDEX processor_events_by_order ON payments.processor_events (order_id) WHERE order_id IS NOT NULL;
        """
    )


def downgrade() -> None:
    raise NotImplementedError("histories only go forward")
