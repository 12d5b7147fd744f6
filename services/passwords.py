"""Passwords: what is allowed, and Argon2id away from the event loop."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar, TypeVarTuple, Unpack

from fastapi_users.password import PasswordHelper
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from models.errors import InvalidRequest, Unavailable

T = TypeVar("T")
Args = TypeVarTuple("Args")

MIN_CHARS = 8
MAX_BYTES = 256  # a longer one only costs us time
MAX_WAITING = 500  # some seconds of work; beyond it, an honest "later" beats a time-out

# OWASP's recommendation for Argon2id: 19 MiB, two passes, one lane; about 20 ms
HELPER = PasswordHelper(PasswordHash([Argon2Hasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)]))

# Argon2 releases the GIL, so a thread a core is all that helps; the bound also caps its memory
_threads = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="argon2")
_waiting = 0


def check_allowed(password: str, email: str) -> None:
    """Raises InvalidRequest (`weak_password`) with the reason; there are no rules about kinds of characters."""
    folded = password.casefold()
    if len(password) < MIN_CHARS:
        raise InvalidRequest(f"A password has at least {MIN_CHARS} characters.", code="weak_password")
    if len(password.encode()) > MAX_BYTES:
        raise InvalidRequest(f"A password has at most {MAX_BYTES} bytes.", code="weak_password")
    if folded in _common() or len(set(folded)) == 1:
        raise InvalidRequest("This is one of the most common passwords.", code="weak_password")
    if folded == email.casefold():
        raise InvalidRequest("A password must not be the e-mail address.", code="weak_password")


@cache
def _common() -> frozenset[str]:
    return frozenset(Path(__file__).with_name("common_passwords.txt").read_text().split())


@cache
def _absent() -> str:
    """What the password of an unknown address is checked against."""
    return HELPER.hash(HELPER.generate())


async def hash_password(password: str) -> str:
    """Raises Unavailable when too many are waiting already."""
    return await _in_thread(HELPER.hash, password)


async def matches(password: str, hashed: str | None) -> bool:
    """Whether `password` is the one behind `hashed`; takes as long when there is no account (None)."""
    if len(password.encode()) > MAX_BYTES:
        password, hashed = "", None
    matched, _ = await _in_thread(HELPER.verify_and_update, password, hashed or _absent())
    return matched and hashed is not None


async def _in_thread(work: Callable[[Unpack[Args]], T], *args: *Args) -> T:
    global _waiting
    if _waiting >= MAX_WAITING:
        raise Unavailable("Too many people are signing in just now.")
    _waiting += 1
    try:
        return await asyncio.get_running_loop().run_in_executor(_threads, work, *args)
    finally:
        _waiting -= 1
