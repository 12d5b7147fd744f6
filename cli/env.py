"""`mercato env`: the file `.env` that docker-compose.yml takes its secrets from, made once, with new ones."""

import os
import secrets
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from core.settings import derived_role_url, role_name
from models.types import Service

STANDARD_OUTPUT = Path("-")
PROCESSOR = "processor"

HEAD = """\
# Made by `make env` for docker-compose.yml. Every line is a secret of this installation: keep a copy in a safe place,
# never commit it. The databases remember the passwords, so changing one here is not enough.
"""
CHOICES = """
# Where browsers find the shop. Production's cookies need TLS (or localhost): put https://… here, and TLS in front.
MERCATO_PUBLIC_URL=http://localhost:8080

# `demo` fills the empty catalogue with 1,200 products. Take it out for a shop of your own, before the first start.
COMPOSE_PROFILES=demo
"""


def env(
    file: Annotated[Path, typer.Argument(help="Where to write it, mode 0600; `-` is standard output.")] = Path(".env"),
) -> None:
    """Write the secrets of a new installation. Never touches a file that exists."""
    text = environment_file()
    if file == STANDARD_OUTPUT:
        typer.echo(text, nl=False)
        return
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise SystemExit(f"{file} is there already, and the databases know its passwords: nothing changed.") from error
    with os.fdopen(descriptor, "w") as output:
        output.write(text)
    typer.echo(f"{file} is written, readable by you alone.")


def environment_file() -> str:
    """The whole content: `NAME=value` lines, values as Compose reads them."""
    secret = {name: secrets.token_hex(24) for name in ("owner", "temporal", "valkey", "key")}
    owner_url = f"postgresql://mercato:{secret['owner']}@postgres:5432/mercato"
    signing_key, verify_key = _key_pair()
    values = {
        "POSTGRES_PASSWORD": secret["owner"],
        "MERCATO_DATABASE_URL": owner_url,
        **{f"MERCATO_{role.upper()}_DATABASE_URL": _role_url(owner_url, role) for role in (*Service, PROCESSOR)},
        "TEMPORAL_DB_PASSWORD": secret["temporal"],
        "VALKEY_PASSWORD": secret["valkey"],
        "MERCATO_REDIS_URL": f"redis://:{secret['valkey']}@valkey:6379/0",
        "MERCATO_SECRET_KEY": secret["key"],
        "MERCATO_PROCESSOR_API_KEY": f"sk_test_{secrets.token_hex(24)}",
        "MERCATO_WEBHOOK_SECRET": f"whsec_{secrets.token_hex(24)}",
        "MERCATO_SIGNING_KEY": _one_line(signing_key),
        "MERCATO_VERIFY_KEY": _one_line(verify_key),
    }
    return "\n".join([HEAD, *(f"{name}={value}" for name, value in values.items()), CHOICES])


def _role_url(owner_url: str, role: str) -> str:
    """What a service signs in with: follows from the owner's password, which does not follow from it."""
    return derived_role_url(owner_url, role_name(role))


def _key_pair() -> tuple[str, str]:
    """PEM of a new Ed25519 key and of its public half."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


def _one_line(pem: str) -> str:
    """Quoted, with `\\n` for the ends of its lines."""
    return '"' + pem.replace("\n", r"\n") + '"'
