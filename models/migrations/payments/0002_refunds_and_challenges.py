"""A payment may be given back after it was taken; a card may wait for its bank to see the shopper."""

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
        """
    )


def downgrade() -> None:
    raise NotImplementedError("histories only go forward")
