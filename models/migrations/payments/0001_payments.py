"""Payments, their attempts, the keys used at the processor, and the double-entry ledger."""

from models.migrations.sql import run_script

revision = "payments_0001"
down_revision = None


def upgrade() -> None:
    run_script(
        """
        CREATE TABLE payments.payments (
            order_id           uuid PRIMARY KEY,
            intent_id          text UNIQUE,
            amount             bigint CHECK (amount > 0),
            currency           text CHECK (currency ~ '^[A-Z]{3}$'),
            status             text NOT NULL DEFAULT 'none'
                CHECK (status IN ('none', 'authorized', 'captured', 'declined', 'unknown', 'voided')),
            void_requested_at  timestamptz,
            voided_at          timestamptz,
            created_at         timestamptz NOT NULL DEFAULT now(),
            updated_at         timestamptz NOT NULL DEFAULT now(),
            CHECK ((amount IS NULL) = (currency IS NULL)),
            CHECK (status = 'none' OR amount IS NOT NULL),
            CHECK (status <> 'voided' OR voided_at IS NOT NULL),
            CHECK (voided_at IS NULL OR void_requested_at IS NOT NULL)
        );
        CREATE INDEX payments_unknown ON payments.payments (updated_at) WHERE status = 'unknown';

        CREATE TABLE payments.attempts (
            order_id           uuid NOT NULL REFERENCES payments.payments,
            attempt            integer NOT NULL CHECK (attempt > 0),
            payment_method_id  text NOT NULL,
            request_key        text NOT NULL,
            state              text NOT NULL DEFAULT 'pending'
                CHECK (state IN ('pending', 'authorized', 'declined', 'unknown')),
            decline_code       text,
            charge_id          text,
            confirm_key        text,
            tries              integer NOT NULL DEFAULT 0 CHECK (tries >= 0),
            created_at         timestamptz NOT NULL DEFAULT now(),
            answered_at        timestamptz,
            PRIMARY KEY (order_id, attempt),
            UNIQUE (order_id, request_key),
            CHECK ((state = 'declined') = (decline_code IS NOT NULL)),
            CHECK ((state IN ('authorized', 'declined')) = (answered_at IS NOT NULL))
        );
        -- one intent takes one charge, so one attempt at most holds the money
        CREATE UNIQUE INDEX one_authorized_attempt ON payments.attempts (order_id) WHERE state = 'authorized';

        -- Which key an operation uses next: `{order}:{operation}`, and `:{number}` behind it from the second key on.
        CREATE TABLE payments.processor_keys (
            order_id  uuid NOT NULL REFERENCES payments.payments,
            operation text NOT NULL,
            number    integer NOT NULL DEFAULT 0,
            errors    integer NOT NULL DEFAULT 0,
            PRIMARY KEY (order_id, operation)
        );

        -- What is said for certain does not change: the amount, the intent, and the ends captured and voided.
        CREATE FUNCTION payments.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'payment of order % is %: this change is refused', OLD.order_id, OLD.status;
        END $$;
        CREATE TRIGGER no_change_of_facts BEFORE UPDATE ON payments.payments FOR EACH ROW WHEN (
                (OLD.amount IS NOT NULL AND (NEW.amount, NEW.currency) IS DISTINCT FROM (OLD.amount, OLD.currency))
                OR (OLD.intent_id IS NOT NULL AND NEW.intent_id IS DISTINCT FROM OLD.intent_id)
                OR (OLD.status IN ('captured', 'voided') AND NEW.status <> OLD.status)
            ) EXECUTE FUNCTION payments.refuse_change();

        CREATE TABLE payments.ledger_transactions (
            id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            order_id uuid NOT NULL,
            kind     text NOT NULL CHECK (kind IN ('authorize', 'capture', 'void', 'refund')),
            key      text NOT NULL UNIQUE,
            at       timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX ledger_by_order ON payments.ledger_transactions (order_id, id);
        CREATE TABLE payments.ledger_entries (
            txn_id       bigint NOT NULL REFERENCES payments.ledger_transactions,
            account      text NOT NULL CHECK (account IN
                             ('customer:authorized', 'processor:holds', 'processor:receivable', 'sales')),
            amount_minor bigint NOT NULL CHECK (amount_minor <> 0),
            currency     text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
            PRIMARY KEY (txn_id, account, currency)
        );
        REVOKE UPDATE, DELETE ON payments.ledger_transactions, payments.ledger_entries FROM mercato_payments;

        -- Checked at COMMIT, when all entries of a transaction are there.
        CREATE FUNCTION payments.check_balance() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            checked bigint := CASE TG_TABLE_NAME WHEN 'ledger_entries'
                THEN (to_jsonb(COALESCE(NEW, OLD)) ->> 'txn_id')::bigint
                ELSE (to_jsonb(COALESCE(NEW, OLD)) ->> 'id')::bigint END;
        BEGIN
            IF EXISTS (SELECT 1 FROM payments.ledger_transactions t WHERE t.id = checked) AND NOT EXISTS
                    (SELECT 1 FROM payments.ledger_entries e WHERE e.txn_id = checked) THEN
                RAISE EXCEPTION 'ledger transaction % has no entries', checked USING ERRCODE = 'check_violation';
            END IF;
            IF EXISTS (SELECT 1 FROM payments.ledger_entries e WHERE e.txn_id = checked
                       GROUP BY e.currency HAVING sum(e.amount_minor) <> 0) THEN
                RAISE EXCEPTION 'ledger transaction % does not sum to zero', checked USING ERRCODE = 'check_violation';
            END IF;
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER transaction_has_entries AFTER INSERT ON payments.ledger_transactions
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION payments.check_balance();
        CREATE CONSTRAINT TRIGGER entries_sum_to_zero AFTER INSERT OR UPDATE OR DELETE ON payments.ledger_entries
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION payments.check_balance();
        """
    )


def downgrade() -> None:
    raise NotImplementedError("histories only go forward")
