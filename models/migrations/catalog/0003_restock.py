"""Units of a sold order that was cancelled go back on the shelf."""

from models.migrations.sql import run_script

revision = "catalog_0003"
down_revision = "catalog_0002"


def upgrade() -> None:
    run_script(
        """
        ALTER TABLE catalog.reservations
            DROP CONSTRAINT reservations_state_check,
            ADD CONSTRAINT reservations_state_check CHECK (state IN ('active', 'committed', 'released', 'restocked'));
        ALTER TABLE catalog.stock_ledger
            DROP CONSTRAINT stock_ledger_kind_check,
            ADD CONSTRAINT stock_ledger_kind_check
                CHECK (kind IN ('receive', 'adjust', 'reserve', 'release', 'commit', 'restock')),
            DROP CONSTRAINT order_rows_name_their_order,
            ADD CONSTRAINT order_rows_name_their_order
                CHECK ((kind IN ('reserve', 'release', 'commit', 'restock')) = (order_id IS NOT NULL));
        """
    )


def downgrade() -> None:
    raise NotImplementedError("histories only go forward")
