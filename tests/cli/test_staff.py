"""`mercato staff`: the first member of staff, with nothing but the users' own role."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from core.db import Sessions, make_engine, make_sessions
from core.settings import Settings
from models.errors import Forbidden, InvalidCredentials
from models.types import Role, Service
from services import users
from services.sessions import SignedIn
from tests.cli.command import mercato

PASSWORD = "an attic full of lamps"


@pytest.fixture
def settings(database_url: str) -> Settings:
    """As a production shop has it: an address has to be proved before it may sign in."""
    return Settings(environment="test", require_verified=True, database_url=database_url)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Sessions]:
    engine = make_engine(settings.service_database_url(Service.USERS))
    yield make_sessions(engine)
    await engine.dispose()


@pytest.fixture
def address(settings: Settings) -> dict[str, str]:
    """What the container of the users service knows."""
    return {"MERCATO_USERS_DATABASE_URL": settings.service_database_url(Service.USERS)}


async def role_of(database: Sessions, signed_in: SignedIn) -> tuple[str, Role]:
    async with database() as session:
        profile = await users.profile(session, signed_in.user_id)
    return profile.full_name, profile.role


async def test_a_new_account_gets_the_role_and_the_password_typed(
    settings: Settings, database: Sessions, address: dict[str, str]
) -> None:
    email = f"{uuid4().hex}@mercato.test"
    made = await mercato("staff", email, "--role", "admin", "--name", "Ada", env=address, typed=f"{PASSWORD}\n")
    assert made.returncode == 0, made.stderr
    signed_in = await users.login(database, settings, email, PASSWORD)
    assert await role_of(database, signed_in) == ("Ada", Role.ADMIN)


async def test_an_account_that_exists_keeps_its_password_and_may_sign_in_unverified(
    settings: Settings, database: Sessions, address: dict[str, str]
) -> None:
    email = f"{uuid4().hex}@mercato.test"
    await users.register(database, email, PASSWORD, "Sky Shopper")
    with pytest.raises(Forbidden):
        await users.login(database, settings, email, PASSWORD)
    changed = await mercato("staff", email.upper(), env=address, typed="something else\n")
    assert changed.returncode == 0, changed.stderr
    signed_in = await users.login(database, settings, email, PASSWORD)
    assert await role_of(database, signed_in) == ("Sky Shopper", Role.SUPPORT)


async def test_a_bad_password_or_address_makes_nobody(
    settings: Settings, database: Sessions, address: dict[str, str]
) -> None:
    email = f"{uuid4().hex}@mercato.test"
    for typed in ("short\n", ""):
        refused = await mercato("staff", email, env=address, typed=typed)
        assert refused.returncode == 1
        assert "at least 8 characters" in refused.stderr
    with pytest.raises(InvalidCredentials):
        await users.login(database, settings, email, "short")
    assert (await mercato("staff", "nobody", env=address, typed=f"{PASSWORD}\n")).returncode == 2
