"""What tests of sign-in do again and again."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from fastapi import FastAPI

from api.tokens import make_signer
from core.settings import Settings

PASSWORD = "a quiet harbour at dawn"
CLOSED = "redis://127.0.0.1:1/0"  # nobody listens on port 1


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.test") as client,
    ):
        yield client


async def until(holds: Callable[[], Awaitable[Any]], seconds: float = 10) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := await holds()):
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.02)
    return found


def fresh_address() -> str:
    return f"{uuid4().hex}@mercato.test"


def signing_key(settings: Settings) -> str:
    make_signer(settings)
    return Path(settings.data_dir, "signing.pem").read_text()


def is_there(path: Path) -> bool:
    return path.exists()


async def sign_in(http: httpx.AsyncClient, email: str, password: str = PASSWORD) -> dict[str, Any]:
    answer = await http.post("/api/auth/login", json={"email": email, "password": password})
    assert answer.status_code == 200, answer.text
    http.cookies.clear()  # each test says itself when it is a browser
    tokens: dict[str, Any] = answer.json()
    return tokens


async def register(http: httpx.AsyncClient, email: str | None = None) -> tuple[str, dict[str, Any]]:
    email = email or fresh_address()
    answer = await http.post("/api/auth/register", json={"email": email, "password": PASSWORD, "fullName": "Ada L."})
    assert answer.status_code == 201, answer.text
    return email, await sign_in(http, email)


def bearer(tokens: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['accessToken']}"}


async def profile_status(http: httpx.AsyncClient, tokens: dict[str, Any]) -> int:
    return (await http.get("/api/auth/profile", headers=bearer(tokens))).status_code


async def mailed_token(settings: Settings, kind: str, email: str) -> str:
    def read() -> str | None:
        for path in Path(settings.data_dir, "mails").glob(f"*-{kind}.txt"):
            lines = path.read_text().splitlines()
            if lines and lines[0] == f"To: {email}" and len(lines) > 3:
                return lines[3]
        return None

    async def found() -> str | None:
        return read()

    token: str = await until(found)
    return token
