"""When a product runs low, is sold out, or is there again, that is an event, written with the change of its stock."""

from models.migrations.sql import run_script

revision = "catalog_0004"
down_revision = "catalog_0003"


def upgrade() -> None:
    run_script(
        """
        ALTER TABLE catalog.stock ADD COLUMN low_at integer NOT NULL DEFAULT 5 CHECK (low_at >= 0);

        CREATE TABLE catalog.stock_events (
            id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            product_id bigint NOT NULL,
            type       text NOT NULL CHECK (type IN ('stock.low', 'stock.out', 'stock.back')),
            available  integer NOT NULL,
            at         timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        CREATE INDEX stock_events_by_product ON catalog.stock_events (product_id, id);
        REVOKE UPDATE, DELETE ON catalog.stock_events FROM mercato_catalog;
        """
    )


def downgrade() -> None:
    raise NotImplementedError("histories only go forward")
