"""What staff's search of orders reads: numbers by their beginning, and the orders that are not simply sold and paid.

`orders_by_state` leads with the id, because every page is sorted by it, whatever states are asked for; those are
looked up in the index, not in the table. Orders sold and paid are not in it: they are nearly all, so that the primary
key finds them as fast, and an order leaves this index for good when its money has been captured.
"""

from models.migrations.sql import run_script

revision = "orders_0002"
down_revision = "orders_0001"


def upgrade() -> None:
    run_script(
        """
        -- "C": the unique index serves searches by a number's beginning as well, in any database
        ALTER TABLE orders.orders
            ALTER COLUMN number TYPE text COLLATE "C",
            ADD CONSTRAINT number_is_canonical
                CHECK (number ~ '^[0-9A-HJKMNP-TV-Z]{5}-[0-9A-HJKMNP-TV-Z]{5}$');

        CREATE INDEX orders_by_state ON orders.orders (id DESC, status, payment_status)
            WHERE status <> 'confirmed' OR payment_status <> 'captured';
        """
    )


def downgrade() -> None:
    raise NotImplementedError("histories only go forward")
