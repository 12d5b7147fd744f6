"""The processor's own books, as plain SQL that may be run again at every start.

An object is a row with the columns that are searched for, and `document`: the object exactly as the API shows it.
`entry` is the double-entry book: append-only, and every transaction sums to zero, both enforced here.
"""

LOCK = 5010_5010

DDL = """
CREATE TABLE IF NOT EXISTS processor.payment_intent (
    id          text PRIMARY KEY,
    account     text NOT NULL,
    seq         bigint GENERATED ALWAYS AS IDENTITY,
    created     bigint NOT NULL,
    customer    text,
    metadata    jsonb NOT NULL,
    document    jsonb NOT NULL
);
CREATE INDEX IF NOT EXISTS payment_intent_account ON processor.payment_intent (account, seq);
CREATE INDEX IF NOT EXISTS payment_intent_metadata ON processor.payment_intent USING gin (metadata jsonb_path_ops);

CREATE TABLE IF NOT EXISTS processor.payment_method (
    id          text PRIMARY KEY,
    account     text NOT NULL,
    alias       text NOT NULL,
    used_by     text,
    document    jsonb NOT NULL
);

CREATE TABLE IF NOT EXISTS processor.charge (
    id             text PRIMARY KEY,
    account        text NOT NULL,
    seq            bigint GENERATED ALWAYS AS IDENTITY,
    created        bigint NOT NULL,
    payment_intent text NOT NULL,
    customer       text,
    document       jsonb NOT NULL
);
CREATE INDEX IF NOT EXISTS charge_account ON processor.charge (account, seq);
CREATE INDEX IF NOT EXISTS charge_payment_intent ON processor.charge (payment_intent);

CREATE TABLE IF NOT EXISTS processor.refund (
    id             text PRIMARY KEY,
    account        text NOT NULL,
    seq            bigint GENERATED ALWAYS AS IDENTITY,
    created        bigint NOT NULL,
    payment_intent text NOT NULL,
    charge         text NOT NULL,
    document       jsonb NOT NULL
);
CREATE INDEX IF NOT EXISTS refund_account ON processor.refund (account, seq);
CREATE INDEX IF NOT EXISTS refund_payment_intent ON processor.refund (payment_intent);

CREATE TABLE IF NOT EXISTS processor.idempotency_key (
    account     text NOT NULL,
    key         text NOT NULL,
    path        text NOT NULL,
    digest      text NOT NULL,
    request_id  text NOT NULL,
    status      integer NOT NULL,
    body        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, key)
);
CREATE INDEX IF NOT EXISTS idempotency_key_created_at ON processor.idempotency_key (created_at);

CREATE TABLE IF NOT EXISTS processor.entry (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    txn            text NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('authorize', 'capture', 'void', 'refund')),
    account        text NOT NULL,
    payment_intent text NOT NULL,
    charge         text NOT NULL,
    ledger         text NOT NULL CHECK (ledger IN ('hold', 'credit_limit', 'cardholder', 'merchant')),
    amount         bigint NOT NULL CHECK (amount <> 0),
    currency       text NOT NULL,
    at             timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS entry_payment_intent ON processor.entry (payment_intent);
CREATE INDEX IF NOT EXISTS entry_txn ON processor.entry (txn);

CREATE OR REPLACE FUNCTION processor.entry_balances() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM processor.entry WHERE txn = NEW.txn GROUP BY currency HAVING sum(amount) <> 0) THEN
        RAISE EXCEPTION 'transaction % does not sum to zero', NEW.txn USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION processor.entry_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the books are append-only' USING ERRCODE = 'insufficient_privilege';
END $$;

DO $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_trigger
                   WHERE tgname = 'entry_balances' AND tgrelid = 'processor.entry'::regclass) THEN
        CREATE CONSTRAINT TRIGGER entry_balances AFTER INSERT ON processor.entry
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION processor.entry_balances();
        CREATE TRIGGER entry_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON processor.entry
            FOR EACH STATEMENT EXECUTE FUNCTION processor.entry_is_final();
    END IF;
END $$;
"""
