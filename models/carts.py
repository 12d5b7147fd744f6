"""Carts as the carts service hands them out."""

import hashlib
from dataclasses import dataclass
from typing import Self
from uuid import UUID


@dataclass(frozen=True)
class CartOwner:
    """A customer, or a guest known by the SHA-256 of a token that only the guest's browser has."""

    customer_id: UUID | None = None
    guest_token_hash: bytes | None = None

    @classmethod
    def guest(cls, token: str) -> Self:
        return cls(guest_token_hash=hashlib.sha256(token.encode()).digest())


@dataclass(frozen=True)
class CartLine:
    product_id: int
    quantity: int


@dataclass(frozen=True)
class Cart:
    """`version` grows with every change; 0: nothing was ever put in. Lines stand in the order they were added."""

    version: int
    lines: list[CartLine]
