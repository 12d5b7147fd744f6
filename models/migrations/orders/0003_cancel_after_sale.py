"""A cancel of a sold order is written down before anything is given back: a lost run of it is found and done again."""

from models.migrations.sql import run_script

revision = "orders_0003"
down_revision = "orders_0002"


def upgrade() -> None:
    run_script(
        """
        -- {actor, reason}
        ALTER TABLE orders.orders ADD COLUMN cancel_requested jsonb;
        """
    )


def downgrade() -> None:
    raise NotImplementedError("histories only go forward")
