"""`mercato staff`: who may look after other people's orders. The first member of staff has nobody to ask."""

import asyncio
import sys
from typing import Annotated

import typer
from email_validator import EmailNotValidError, validate_email

from cli.running import present_settings
from core.db import make_engine, make_sessions
from core.settings import Settings
from models.types import Role, Service
from services import passwords, users


def staff(
    email: Annotated[str, typer.Argument(help="The account's address.")],
    role: Annotated[Role, typer.Option(help="`shopper` takes the rights away again.")] = Role.SUPPORT,
    name: Annotated[str, typer.Option(help="Full name of a new account; empty: what stands before the @.")] = "",
) -> None:
    """Give an account a role, and make the account if there is none.

    A new account's password is asked for, or read from standard input where that is no terminal.
    """
    settings = present_settings()
    if not (settings.database_url or settings.users_database_url):
        raise typer.BadParameter("set MERCATO_USERS_DATABASE_URL or MERCATO_DATABASE_URL, or start `mercato up`")
    try:
        # as the API takes addresses: `.test` is one that nobody owns
        address = validate_email(email, check_deliverability=False, test_environment=True).normalized
    except EmailNotValidError as error:
        raise typer.BadParameter(str(error)) from error
    asyncio.run(_give(settings, address, role, name or address.partition("@")[0]))


async def _give(settings: Settings, email: str, role: Role, name: str) -> None:
    engine = make_engine(settings.service_database_url(Service.USERS), application="mercato-staff", pool_size=1)
    open_session = make_sessions(engine)
    try:
        async with open_session.begin() as session:
            known = await users.change_role(session, email, role)
        if known is None:
            password = _password(email)
            async with open_session.begin() as session:
                await users.ensure_user(session, email=email, password=password, full_name=name, role=role)
    finally:
        await engine.dispose()
    typer.echo(f"{email} is {role.value} now." if known else f"{email} has a new account and is {role.value}.")


def _password(email: str) -> str:
    """Raises InvalidRequest (`weak_password`)."""
    if sys.stdin.isatty():
        password: str = typer.prompt(f"Password for {email}", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    passwords.check_allowed(password, email)
    return password
