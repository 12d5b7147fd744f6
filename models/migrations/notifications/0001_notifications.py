"""Messages to customers: one for each (order, kind, channel)."""

from models.migrations.sql import run_script

revision = "notifications_0001"
down_revision = None


def upgrade() -> None:
    run_script(
        """
        CREATE TABLE notifications.messages (
            id          uuid PRIMARY KEY,
            order_id    uuid NOT NULL,
            customer_id uuid NOT NULL,
            kind        text NOT NULL CHECK (kind <> ''),
            channel     text NOT NULL CHECK (channel <> ''),
            data        jsonb NOT NULL,
            state       text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued')),
            created_at  timestamptz NOT NULL DEFAULT now(),
            UNIQUE (order_id, kind, channel)
        );
        CREATE INDEX messages_by_customer ON notifications.messages (customer_id, id DESC);
        """
    )


def downgrade() -> None:
    raise NotImplementedError("histories only go forward")
