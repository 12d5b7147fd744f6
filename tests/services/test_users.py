"""Rules of accounts, sessions and revocations, on a real database and a real Valkey."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from core.db import Sessions, make_engine, make_sessions
from core.settings import Settings
from models.errors import BadRequest, InvalidCredentials, InvalidRequest, Unauthenticated
from models.types import Role, Service
from services import mails, passwords, revocations, sessions, users

PASSWORD = "a quiet harbour at dawn"


@pytest.fixture(scope="module")
def settings(make_database: Callable[[str], str]) -> Settings:
    """A database of our own: a users service on a shared one would announce our revocations and take our mails."""
    return Settings(environment="test", database_url=make_database("users"))


@pytest.fixture(scope="module")
async def database(settings: Settings) -> AsyncIterator[Sessions]:
    engine = make_engine(settings.service_database_url(Service.USERS))
    yield make_sessions(engine)
    await engine.dispose()


@pytest.fixture
async def valkey(redis_url: str) -> AsyncIterator[Redis]:
    """A numbered database of our own, so that emptying it troubles nobody."""
    redis = Redis.from_url(urlunsplit(urlsplit(redis_url)._replace(path="/11")))
    await redis.flushdb()
    yield redis
    await redis.aclose()


async def execute(database: Sessions, statement: str, **values: object) -> None:
    async with database.begin() as session:
        await (await session.connection()).execute(text(statement), values)


async def registered(database: Sessions) -> str:
    email = f"{uuid4().hex}@mercato.test"
    await users.register(database, email, PASSWORD, "Ada L.")
    return email


async def mailed_token(database: Sessions, settings: Settings, kind: str, email: str) -> str:
    async with database.begin() as session:
        connection = await session.connection()
        found = await connection.execute(text("SELECT id FROM users.users WHERE email = :email"), {"email": email})
        token = await mails.token_for(session, settings, kind, found.one().id, email)
    assert token
    return token


async def test_only_a_hash_of_the_password_is_kept(database: Sessions) -> None:
    email = await registered(database)
    async with database.begin() as session:
        connection = await session.connection()
        found = await connection.execute(
            text("SELECT hashed_password FROM users.users WHERE email = :email"), {"email": email}
        )
        assert found.one().hashed_password.startswith("$argon2id$")


async def test_hashing_leaves_the_event_loop_free() -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    other = asyncio.create_task(turn())
    await asyncio.gather(*(passwords.hash_password(PASSWORD) for _ in range(8)))
    other.cancel()
    assert turns > 8


@pytest.mark.parametrize("weak", ["1234567", "Password1", "iloveyou", "zzzzzzzzzz", "ADA@mercato.test", "é" * 129])
def test_weak_passwords_are_refused(weak: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        passwords.check_allowed(weak, "ada@mercato.test")
    assert refusal.value.code == "weak_password"


def test_the_list_of_common_passwords_is_worth_its_name() -> None:
    assert len(passwords._common()) > 300


async def test_twenty_registrations_at_once_make_one_account(database: Sessions) -> None:
    email = f"{uuid4().hex}@mercato.test"
    await asyncio.gather(*(users.register(database, email, f"{PASSWORD} {n}", "Ada") for n in range(20)))
    async with database.begin() as session:
        connection = await session.connection()
        found = await connection.execute(text("SELECT count(*) FROM users.users WHERE email = :e"), {"e": email})
        assert found.scalar_one() == 1


async def test_a_deactivated_account_can_do_nothing(database: Sessions, settings: Settings) -> None:
    email = await registered(database)
    signed_in = await users.login(database, settings, email, PASSWORD)
    await execute(database, "UPDATE users.users SET is_active = false WHERE email = :email", email=email)
    with pytest.raises(InvalidCredentials):
        await users.login(database, settings, email, PASSWORD)
    async with database.begin() as session:
        assert not await sessions.is_active(session, signed_in.session_id)
        with pytest.raises(Unauthenticated):
            await sessions.rotate(session, settings, signed_in.refresh_token)


async def test_a_seeded_user_has_its_role_and_seeding_again_changes_nothing(
    database: Sessions, settings: Settings
) -> None:
    email = f"{uuid4().hex}@mercato.test"
    async with database.begin() as session:
        first = await users.ensure_user(session, email, PASSWORD, "Sup Port", Role.SUPPORT)
    async with database.begin() as session:
        assert await users.ensure_user(session, email, "something else", "Other", Role.SUPPORT) == first
    signed_in = await users.login(database, settings, email, PASSWORD)
    assert (signed_in.user_id, signed_in.role) == (first, Role.SUPPORT)


async def test_an_old_refresh_token_is_forgiven_for_some_seconds_only(database: Sessions, settings: Settings) -> None:
    first = await users.login(database, settings, await registered(database), PASSWORD)
    async with database.begin() as session:
        second = await sessions.rotate(session, settings, first.refresh_token)
        assert isinstance(second, sessions.SignedIn)
        assert await sessions.rotate(session, settings, first.refresh_token) == second
    await execute(
        database,
        "UPDATE users.sessions SET rotated_at = now() - make_interval(secs => :s) WHERE id = :id",
        s=sessions.GRACE_SECONDS + 1,
        id=first.session_id,
    )
    async with database.begin() as session:
        assert await sessions.rotate(session, settings, first.refresh_token) == sessions.Reused(first.session_id)
        assert not await sessions.is_active(session, first.session_id)


async def test_a_session_ends_by_itself(database: Sessions, settings: Settings) -> None:
    signed_in = await users.login(database, settings, await registered(database), PASSWORD)
    await execute(database, "UPDATE users.sessions SET expires_at = now() WHERE id = :id", id=signed_in.session_id)
    async with database.begin() as session:
        assert not await sessions.is_active(session, signed_in.session_id)
        with pytest.raises(Unauthenticated):
            await sessions.rotate(session, settings, signed_in.refresh_token)


async def test_refresh_tokens_made_under_another_key_are_strangers(database: Sessions, settings: Settings) -> None:
    signed_in = await users.login(database, settings, await registered(database), PASSWORD)
    other = Settings(environment="test", database_url=settings.database_url, secret_key="another key altogether")
    async with database.begin() as session:
        with pytest.raises(Unauthenticated):
            await sessions.rotate(session, other, signed_in.refresh_token)


async def test_a_reset_token_dies_with_the_address_it_was_sent_to(database: Sessions, settings: Settings) -> None:
    email = await registered(database)
    token = await mailed_token(database, settings, "reset", email)
    await execute(
        database, "UPDATE users.users SET email = :new WHERE email = :email", email=email, new=f"{uuid4()}@mercato.test"
    )
    async with database.begin() as session:
        with pytest.raises(BadRequest):
            await users.reset_password(session, settings, token, "another quiet harbour")


async def test_a_verify_token_resets_no_password_and_the_other_way_round(
    database: Sessions, settings: Settings
) -> None:
    email = await registered(database)
    verify = await mailed_token(database, settings, "verify", email)
    reset = await mailed_token(database, settings, "reset", email)
    async with database.begin() as session:
        with pytest.raises(BadRequest):
            await users.reset_password(session, settings, verify, "another quiet harbour")
        with pytest.raises(BadRequest):
            await users.verify(session, settings, reset)


async def test_a_mail_is_taken_once_unless_its_delivery_fails(database: Sessions, settings: Settings) -> None:
    email = await registered(database)

    async def taken() -> list[mails.Mail]:
        return [mail for mail in await mails.take(session, settings, limit=1000) if mail.address == email]

    with suppress(ConnectionError):
        async with database.begin() as session:
            assert [mail.kind for mail in await taken()] == ["verify"]
            raise ConnectionError("the delivery fails")
    async with database.begin() as session:
        (mail,) = await taken()
        assert mail.token
    async with database.begin() as session:
        assert await taken() == []
    async with database.begin() as session:
        assert await users.verify(session, settings, mail.token) == []


async def test_the_mail_queue_holds_no_token(database: Sessions) -> None:
    async with database.begin() as session:
        connection = await session.connection()
        columns = await connection.execute(
            text(
                "SELECT attname FROM pg_attribute WHERE attrelid = 'users.mails'::regclass "
                "AND attnum > 0 AND NOT attisdropped"
            )
        )
        assert {row.attname for row in columns} == {"id", "kind", "user_id", "address", "created_at", "sent_at"}


async def test_the_audit_can_only_grow(database: Sessions) -> None:
    await registered(database)
    for statement in ("UPDATE users.audit SET event = 'x'", "DELETE FROM users.audit"):
        with pytest.raises(DBAPIError, match="permission denied"):
            await execute(database, statement)


async def ended_session(database: Sessions, settings: Settings) -> UUID:
    signed_in = await users.login(database, settings, await registered(database), PASSWORD)
    async with database.begin() as session:
        await sessions.end(session, signed_in.session_id)
    return signed_in.session_id


async def test_an_empty_valkey_says_that_it_does_not_know(valkey: Redis) -> None:
    assert await revocations.is_revoked(valkey, uuid4()) is None
    assert await revocations.revoked_among(valkey, [uuid4()]) is None


async def test_what_valkey_was_not_told_or_has_lost_is_written_again(
    database: Sessions, settings: Settings, valkey: Redis
) -> None:
    announcer = revocations.Announcer(database, valkey, settings.access_token_seconds)
    never_told = await ended_session(database, settings)
    await announcer.renew()
    assert await revocations.is_revoked(valkey, never_told)
    assert await revocations.is_revoked(valkey, uuid4()) is False
    told_later = await ended_session(database, settings)
    await announcer.renew()
    assert await revocations.is_revoked(valkey, told_later)
    await valkey.flushdb()
    assert await revocations.is_revoked(valkey, told_later) is None
    await announcer.renew()
    assert await revocations.revoked_among(valkey, [never_told, told_later]) == {never_told, told_later}


async def test_a_valkey_that_restarted_from_an_old_snapshot_is_filled_again(
    database: Sessions, settings: Settings, valkey: Redis
) -> None:
    announcer = revocations.Announcer(database, valkey, settings.access_token_seconds)
    session_id = await ended_session(database, settings)
    await announcer.renew()
    await valkey.flushdb()
    await valkey.set(revocations.READY, 1)  # the snapshot had the marker, but not the revocation
    announcer._filled_run = "the run before"
    await announcer.renew()
    assert await revocations.is_revoked(valkey, session_id)


async def test_announcing_to_no_valkey_is_no_error() -> None:
    nobody = Redis.from_url("redis://127.0.0.1:1/0")
    assert not await revocations.announce(nobody, [uuid4()], 300)
    await nobody.aclose()


async def test_another_role_ends_the_sessions_that_carry_the_former_one(database: Sessions, settings: Settings) -> None:
    email = f"{uuid4().hex}@mercato.test"
    async with database.begin() as session:
        user_id = await users.ensure_user(session, email, PASSWORD, "Sup Port", Role.SUPPORT)
    signed_in = await users.login(database, settings, email, PASSWORD)
    async with database.begin() as session:
        assert await users.change_role(session, email.upper(), Role.SHOPPER) == user_id
        assert not await sessions.is_active(session, signed_in.session_id)
        assert (await users.profile(session, user_id)).role is Role.SHOPPER
        assert await users.change_role(session, f"{uuid4().hex}@mercato.test", Role.ADMIN) is None
