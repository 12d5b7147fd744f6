"""`mercato env`: secrets of one installation, made once."""

import stat
from pathlib import Path
from uuid import uuid4

import pytest
from dotenv import dotenv_values
from pydantic import SecretStr

from api.tokens import make_signer, make_verifier
from cli.env import env, environment_file
from core.settings import Settings, derived_role_url, role_name
from models.types import Role, Service


def values(text: str, folder: Path) -> dict[str, str]:
    file = folder / "read.env"
    file.write_text(text)
    return {name: value or "" for name, value in dotenv_values(file, interpolate=False).items()}


def test_the_file_is_for_its_owner_alone_and_is_never_written_over(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    env(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_text()
    with pytest.raises(SystemExit, match="nothing changed"):
        env(file)
    assert file.read_text() == before


def test_every_installation_has_secrets_of_its_own(tmp_path: Path) -> None:
    one, other = (values(environment_file(), tmp_path) for _ in range(2))
    assert one.keys() == other.keys()
    assert {name for name in one if one[name] == other[name]} == {"MERCATO_PUBLIC_URL", "COMPOSE_PROFILES"}


def test_a_role_signs_in_with_what_migrations_give_it(tmp_path: Path) -> None:
    made = values(environment_file(), tmp_path)
    for name in (*(service.value for service in Service), "processor"):
        expected = derived_role_url(made["MERCATO_DATABASE_URL"], role_name(name))
        assert made[f"MERCATO_{name.upper()}_DATABASE_URL"] == expected
        assert made["POSTGRES_PASSWORD"] not in expected


async def test_production_starts_with_it_and_verifies_what_users_signs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in values(environment_file(), tmp_path).items():
        monkeypatch.setenv(name, value)
    settings = Settings(environment="production")

    async def fetch() -> dict[str, object]:
        raise AssertionError("the key is at hand")

    signer = make_signer(settings)
    without_signing_key = settings.model_copy(update={"signing_key": SecretStr("")})
    verifier = make_verifier(without_signing_key, (Service.ORDERS,), fetch)
    user_id = uuid4()
    claims = await verifier.verify(signer.sign(user_id, uuid4(), Role.ADMIN))
    assert (claims.user_id, claims.role) == (user_id, Role.ADMIN)
