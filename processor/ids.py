"""Identifiers in the processor's own shapes: `pi_`, `ch_`, `re_`, `pm_`, `txn_`, `req_`."""

import secrets
import string

ALPHABET = string.ascii_letters + string.digits
# A random byte to a character: 256 is not a multiple of 62, so eight characters are a little likelier; who guesses
# gains less than a hundredth of a bit a character. One system call an id, not one a character.
CHARACTERS = (ALPHABET * 5)[:256].encode()


def new_id(prefix: str, length: int = 24) -> str:
    """`prefix_` and `length` random letters and digits."""
    return f"{prefix}_{random_text(length)}"


def random_text(length: int) -> str:
    """Unguessable letters and digits."""
    return secrets.token_bytes(length).translate(CHARACTERS).decode()
