"""Orders, their lines, idempotency keys, the customer event log and the audit of what people did."""

from models.migrations.sql import run_script

revision = "orders_0001"
down_revision = None


def upgrade() -> None:
    run_script(
        """
        CREATE TABLE orders.orders (
            id               uuid PRIMARY KEY,
            number           text NOT NULL UNIQUE,
            customer_id      uuid NOT NULL,
            status           text NOT NULL,
            payment_status   text NOT NULL,
            needs_attention  boolean NOT NULL DEFAULT false,
            attention        jsonb,
            action_required  jsonb,
            refusal          jsonb,
            currency         text NOT NULL,
            subtotal_amount  bigint CHECK (subtotal_amount >= 0),
            shipping_amount  bigint CHECK (shipping_amount >= 0),
            tax_amount       bigint CHECK (tax_amount >= 0),
            total_amount     bigint CHECK (total_amount = subtotal_amount + shipping_amount + tax_amount),
            shipping_address jsonb,
            checkout         jsonb NOT NULL,
            cancel_reason    text,
            trace_id         text,
            created_at       timestamptz NOT NULL DEFAULT now(),
            updated_at       timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX orders_by_customer ON orders.orders (customer_id, id DESC);
        CREATE INDEX orders_open ON orders.orders (updated_at)
            WHERE status IN ('pending', 'action_required') OR (status = 'confirmed' AND payment_status <> 'captured');
        CREATE INDEX orders_needing_attention ON orders.orders (id) WHERE needs_attention;

        CREATE TABLE orders.order_lines (
            order_id    uuid NOT NULL REFERENCES orders.orders,
            product_id  bigint NOT NULL,
            position    integer NOT NULL,
            sku         text NOT NULL,
            name        text NOT NULL,
            quantity    integer NOT NULL CHECK (quantity > 0),
            unit_amount bigint NOT NULL CHECK (unit_amount >= 0),
            line_amount bigint NOT NULL CHECK (line_amount = unit_amount * quantity),
            PRIMARY KEY (order_id, product_id)
        );

        CREATE TABLE orders.idempotency_keys (
            user_id         uuid NOT NULL,
            method          text NOT NULL,
            path            text NOT NULL,
            key             text NOT NULL,
            body_sha256     text NOT NULL,
            order_id        uuid NOT NULL,
            in_flight_until timestamptz,
            created_at      timestamptz NOT NULL DEFAULT now(),
            expires_at      timestamptz NOT NULL,
            PRIMARY KEY (user_id, method, path, key)
        );

        CREATE TABLE orders.customer_counters (
            customer_id uuid PRIMARY KEY,
            last_seq    bigint NOT NULL
        );

        CREATE TABLE orders.customer_event (
            customer_id uuid NOT NULL,
            seq         bigint NOT NULL,
            order_id    uuid NOT NULL,
            event_key   text NOT NULL,
            type        text NOT NULL,
            data        jsonb NOT NULL,
            at          timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (customer_id, seq),
            UNIQUE (order_id, event_key)
        );
        REVOKE UPDATE, DELETE ON orders.customer_event FROM mercato_orders;

        CREATE TABLE orders.audit (
            id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            order_id uuid NOT NULL,
            actor    text NOT NULL,
            action   text NOT NULL,
            reason   text NOT NULL,
            at       timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX audit_by_order ON orders.audit (order_id);
        REVOKE UPDATE, DELETE ON orders.audit FROM mercato_orders;

        -- An end is an end, whoever writes: no change of status after it.
        CREATE FUNCTION orders.refuse_change_after_end() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'order % is %, it cannot become %', OLD.id, OLD.status, NEW.status;
        END $$;
        CREATE TRIGGER no_change_after_end BEFORE UPDATE OF status ON orders.orders
            FOR EACH ROW WHEN (OLD.status IN ('rejected', 'expired', 'cancelled') AND NEW.status <> OLD.status)
            EXECUTE FUNCTION orders.refuse_change_after_end();
        """
    )


def downgrade() -> None:
    raise NotImplementedError("histories only go forward")
