"""Carts, of customers and of guests, and the claims by which orders take their lines."""

from models.migrations.sql import run_script

revision = "carts_0001"
down_revision = None


def upgrade() -> None:
    run_script(
        """
        CREATE TABLE carts.carts (
            id               uuid PRIMARY KEY,
            customer_id      uuid UNIQUE,
            guest_token_hash bytea UNIQUE,
            version          integer NOT NULL,
            created_at       timestamptz NOT NULL DEFAULT now(),
            updated_at       timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT one_owner CHECK (num_nonnulls(customer_id, guest_token_hash) = 1)
        );

        CREATE TABLE carts.cart_lines (
            cart_id    uuid NOT NULL REFERENCES carts.carts ON DELETE CASCADE,
            product_id bigint NOT NULL,
            quantity   integer NOT NULL CHECK (quantity BETWEEN 1 AND 99),
            position   integer NOT NULL,
            PRIMARY KEY (cart_id, product_id)
        );

        -- A claim without a cart is a tombstone: the order ended before it had claimed anything.
        CREATE TABLE carts.claims (
            order_id   uuid PRIMARY KEY,
            cart_id    uuid REFERENCES carts.carts,
            state      text NOT NULL CHECK (state IN ('active', 'consumed', 'released')),
            lines      jsonb NOT NULL,
            version    integer NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            ended_at   timestamptz,
            CONSTRAINT active_claims_have_a_cart CHECK (state <> 'active' OR cart_id IS NOT NULL),
            CONSTRAINT ended_when_not_active CHECK ((state = 'active') = (ended_at IS NULL))
        );
        CREATE UNIQUE INDEX one_active_claim_a_cart ON carts.claims (cart_id) WHERE state = 'active';
        """
    )


def downgrade() -> None:
    raise NotImplementedError("histories only go forward")
