"""The processor's own books, as plain SQL that may be run again at every start.

An object is a row with the columns that are searched for, and `document`: the object exactly as the API shows it.
`entry` is the double-entry book: append-only, and every transaction sums to zero, both enforced here.

The functions that lock read in a statement of their own after it: in one and the same SELECT the row would be read as
it was before the lock was given, and what its last holder has just written would be missed.
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

CREATE TABLE IF NOT EXISTS processor.event (
    id       text PRIMARY KEY,
    account  text NOT NULL,
    seq      bigint GENERATED ALWAYS AS IDENTITY,
    created  bigint NOT NULL,
    type     text NOT NULL,
    document jsonb NOT NULL,
    at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS event_account ON processor.event (account, seq);
CREATE INDEX IF NOT EXISTS event_at ON processor.event (at);

CREATE TABLE IF NOT EXISTS processor.webhook_endpoint (
    id             text PRIMARY KEY,
    account        text NOT NULL,
    seq            bigint GENERATED ALWAYS AS IDENTITY,
    created        bigint NOT NULL,
    url            text NOT NULL,
    enabled_events text[] NOT NULL,
    secret         text NOT NULL,
    status         text NOT NULL CHECK (status IN ('enabled', 'disabled')),
    document       jsonb NOT NULL
);
CREATE INDEX IF NOT EXISTS webhook_endpoint_account ON processor.webhook_endpoint (account);

CREATE TABLE IF NOT EXISTS processor.delivery (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event      text NOT NULL,
    endpoint   text NOT NULL,
    attempts   integer NOT NULL DEFAULT 0,
    due_at     timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS delivery_due ON processor.delivery (due_at);

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

-- Every INSERT must bring whole transactions. Each sums to zero, so all do: what is there need not be read again.
CREATE OR REPLACE FUNCTION processor.entries_balance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    odd text := (SELECT min(txn) FROM (SELECT txn FROM inserted GROUP BY txn, currency HAVING sum(amount) <> 0) AS t);
BEGIN
    IF odd IS NOT NULL THEN
        RAISE EXCEPTION 'transaction % does not sum to zero', odd USING ERRCODE = 'check_violation';
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
                   WHERE tgname = 'entries_balance' AND tgrelid = 'processor.entry'::regclass) THEN
        CREATE TRIGGER entries_balance AFTER INSERT ON processor.entry
            REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION processor.entries_balance();
        CREATE OR REPLACE TRIGGER entry_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON processor.entry
            FOR EACH STATEMENT EXECUTE FUNCTION processor.entry_is_final();
        -- what checked each row at the end of the transaction, in databases made before
        DROP TRIGGER IF EXISTS entry_balances ON processor.entry;
        DROP FUNCTION IF EXISTS processor.entry_balances();
        DROP INDEX IF EXISTS processor.entry_txn;
    END IF;
END $$;

-- A key for a request that is to be run: `claimed`, and no reply. With a reply, the key is free again at once.
CREATE OR REPLACE FUNCTION processor.claim_key(lock bigint, of_account text, of_key text,
    OUT claimed boolean, OUT path text, OUT digest text, OUT status integer, OUT body text, OUT request_id text
) LANGUAGE plpgsql AS $$
BEGIN
    claimed := pg_try_advisory_lock(lock);
    IF NOT claimed THEN
        RETURN;
    END IF;
    SELECT kept.path, kept.digest, kept.status, kept.body, kept.request_id INTO path, digest, status, body, request_id
    FROM processor.idempotency_key AS kept
    WHERE kept.account = of_account AND kept.key = of_key AND kept.created_at > now() - interval '24 hours';
    IF FOUND THEN
        PERFORM pg_advisory_unlock(lock);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION processor.lock_intent(lock bigint, of_account text, of_id text,
    OUT locked boolean, OUT document jsonb
) LANGUAGE plpgsql AS $$
BEGIN
    locked := pg_try_advisory_lock(lock);
    document := (SELECT intent.document FROM processor.payment_intent AS intent
                 WHERE intent.id = of_id AND intent.account = of_account);
END $$;

-- waits for its turn
CREATE OR REPLACE FUNCTION processor.lock_refund(lock bigint, of_account text, of_id text, OUT document jsonb)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_lock(lock);
    document := (SELECT refund.document FROM processor.refund AS refund
                 WHERE refund.id = of_id AND refund.account = of_account);
END $$;
"""
