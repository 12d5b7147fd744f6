"""Breaks that reconciliation finds, each a row, and what happened to it.

`orders_unfinished` takes the place of `orders_open`: sold orders that stand still, or are being cancelled, are in it,
so that reconciliation reads nothing else however many orders there are.
"""

from models.migrations.sql import run_script

revision = "orders_0004"
down_revision = "orders_0003"


def upgrade() -> None:
    run_script(
        """
        CREATE TABLE orders.breaks (
            id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            kind          text NOT NULL,
            subject       text NOT NULL,
            order_id      uuid,
            detail        jsonb NOT NULL DEFAULT '{}',
            state         text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'repaired', 'resolved')),
            first_seen_at timestamptz NOT NULL DEFAULT now(),
            last_seen_at  timestamptz NOT NULL DEFAULT now(),
            times_seen    integer NOT NULL DEFAULT 1,
            closed_at     timestamptz,
            closed_by     text,
            reason        text,
            CHECK ((state = 'open') = (closed_at IS NULL)),
            CHECK (state <> 'resolved' OR (closed_by IS NOT NULL AND reason IS NOT NULL))
        );
        CREATE UNIQUE INDEX one_open_break ON orders.breaks (kind, subject) WHERE state = 'open';
        CREATE INDEX breaks_resolved ON orders.breaks (kind, subject) WHERE state = 'resolved';
        CREATE INDEX breaks_by_order ON orders.breaks (order_id) WHERE order_id IS NOT NULL;

        CREATE TABLE orders.break_events (
            id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            break_id bigint NOT NULL REFERENCES orders.breaks,
            type     text NOT NULL CHECK (type IN ('break.opened', 'break.repaired', 'break.resolved')),
            data     jsonb NOT NULL DEFAULT '{}',
            actor    text NOT NULL DEFAULT '',
            at       timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        CREATE INDEX break_events_by_break ON orders.break_events (break_id);
        REVOKE UPDATE, DELETE ON orders.break_events FROM mercato_orders;

        -- up to when the processor's books have been compared
        CREATE TABLE orders.reconciled_until (
            what text PRIMARY KEY,
            at   timestamptz NOT NULL
        );

        CREATE INDEX orders_unfinished ON orders.orders (updated_at, id)
            WHERE status IN ('pending', 'action_required') OR (status = 'confirmed' AND
                (payment_status <> 'captured' OR needs_attention OR cancel_requested IS NOT NULL));
        DROP INDEX orders.orders_open;
        """
    )


def downgrade() -> None:
    raise NotImplementedError("histories only go forward")
