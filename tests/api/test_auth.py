"""Tokens, cookies and sessions over HTTP: what opens a door, and when it closes."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import SecretStr

from api import users
from api.auth import GUARDS, CurrentUser, service_credential
from api.clients import UsersClient, internal_http
from api.main import create_app
from api.tokens import make_signer
from core.settings import Settings
from models.types import Role, Service
from tests.api.accounts import (
    CLOSED,
    PASSWORD,
    bearer,
    fresh_address,
    is_there,
    mailed_token,
    profile_status,
    register,
    serving,
    sign_in,
    signing_key,
    until,
)


def forged(settings: Settings, key: Any = None, alg: str = "EdDSA", headers: Any = None, **changes: Any) -> str:
    """A token as ours but for `changes` (None takes a claim out)."""
    signer = make_signer(settings)
    now = int(time.time())
    claims = {"sub": str(uuid4()), "sid": str(uuid4()), "role": "admin", "aud": "mercato", "iss": "mercato"}
    all_claims: dict[str, Any] = claims | {"iat": now, "exp": now + 300, "jti": "x"} | changes
    kid = {"kid": signer.jwks["keys"][0]["kid"]}
    payload = {name: value for name, value in all_claims.items() if value is not None}
    return jwt.encode(payload, signer._key if key is None else key, algorithm=alg, headers=kid | (headers or {}))


BAD_TOKENS: dict[str, Callable[[Settings], str]] = {
    "alg none": lambda s: forged(s, key="", alg="none"),
    "HS256 with the public key": lambda s: forged(s, key=make_signer(s).jwks["keys"][0]["x"], alg="HS256"),
    "another key": lambda s: forged(s, key=Ed25519PrivateKey.generate()),
    "another audience": lambda s: forged(s, aud="fastapi-users:reset"),
    "ours among audiences": lambda s: forged(s, aud=["mercato", "else"]),
    "another issuer": lambda s: forged(s, iss="else"),
    "expired": lambda s: forged(s, exp=int(time.time()) - 10),
    "not yet": lambda s: forged(s, nbf=int(time.time()) + 60),
    "from the future": lambda s: forged(s, iat=int(time.time()) + 60),
    "without end": lambda s: forged(s, exp=None),
    "without session": lambda s: forged(s, sid=None),
    "without subject": lambda s: forged(s, sub=None),
    "without id": lambda s: forged(s, jti=None),
    "an unknown role": lambda s: forged(s, role="root"),
    "a subject that is no id": lambda s: forged(s, sub="1"),
    "a session that is no id": lambda s: forged(s, sid=[]),
    "a foreign kid": lambda s: forged(s, headers={"kid": "else"}),
    "crit": lambda s: forged(s, headers={"crit": ["x"], "x": 1}),
    "jku": lambda s: forged(s, headers={"jku": "https://evil.test/keys"}),
    "jwk": lambda s: forged(s, headers={"jwk": make_signer(s).jwks["keys"][0]}),
    "a session that never was": lambda s: forged(s),
    "cut": lambda s: forged(s)[:-4],
    "long": lambda s: forged(s, jti="x" * 5000),
    "not a token": lambda s: "abc",
    "dots": lambda s: "..",
    "garbage": lambda s: "%00.é.x",
}


@pytest.mark.parametrize("name", BAD_TOKENS)
async def test_a_bad_token_opens_nothing(http: httpx.AsyncClient, settings: Settings, name: str) -> None:
    header = f"Bearer {BAD_TOKENS[name](settings)}".encode()
    answer = await http.get("/api/auth/profile", headers={b"Authorization": header})
    assert answer.status_code == 401, answer.text
    assert answer.json()["code"] in ("unauthenticated", "token_expired")


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "Token abc"])
async def test_a_bad_authorization_header_opens_nothing(http: httpx.AsyncClient, header: str) -> None:
    assert (await http.get("/api/auth/profile", headers={"Authorization": header})).status_code == 401


async def test_refresh_and_mail_tokens_are_no_access_tokens(http: httpx.AsyncClient, settings: Settings) -> None:
    email, tokens = await register(http)
    await http.post("/api/auth/forgot-password", json={"email": email})
    for token in (tokens["refreshToken"], await mailed_token(settings, "reset", email)):
        assert await profile_status(http, {"accessToken": token}) == 401


async def test_logout_ends_this_session_at_once_and_no_other(http: httpx.AsyncClient) -> None:
    email, first = await register(http)
    second = await sign_in(http, email)
    assert (await http.post("/api/auth/logout", headers=bearer(first))).status_code == 204
    assert await profile_status(http, first) == 401
    assert await profile_status(http, second) == 200
    refused = await http.post("/api/auth/refresh", json={"refreshToken": first["refreshToken"]})
    assert refused.status_code == 401


async def test_logout_works_by_refresh_token_alone(http: httpx.AsyncClient) -> None:
    _, tokens = await register(http)
    answer = await http.post("/api/auth/logout", json={"refreshToken": tokens["refreshToken"]})
    assert answer.status_code == 204
    assert await profile_status(http, tokens) == 401
    assert (await http.post("/api/auth/logout")).status_code == 401


async def test_a_refresh_gives_new_tokens_for_the_same_session(http: httpx.AsyncClient) -> None:
    _, tokens = await register(http)
    answer = await http.post("/api/auth/refresh", json={"refreshToken": tokens["refreshToken"]})
    assert answer.status_code == 200
    assert answer.json()["refreshToken"] != tokens["refreshToken"]
    assert answer.json()["userId"] == tokens["userId"]
    assert await profile_status(http, answer.json()) == 200


async def test_two_refreshes_at_once_get_the_same_next_token(http: httpx.AsyncClient) -> None:
    _, tokens = await register(http)
    body = {"refreshToken": tokens["refreshToken"]}
    answers = await asyncio.gather(*(http.post("/api/auth/refresh", json=body) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refreshToken"] for answer in answers}) == 1


async def test_an_old_refresh_token_that_comes_again_ends_the_session(http: httpx.AsyncClient) -> None:
    _, tokens = await register(http)
    newest = tokens
    for _ in range(2):  # two generations on, so that no grace applies
        newest = (await http.post("/api/auth/refresh", json={"refreshToken": newest["refreshToken"]})).json()
    reused = await http.post("/api/auth/refresh", json={"refreshToken": tokens["refreshToken"]})
    assert (reused.status_code, reused.json()["code"]) == (401, "token_reused")
    assert await profile_status(http, newest) == 401
    body = {"refreshToken": newest["refreshToken"]}
    assert (await http.post("/api/auth/refresh", json=body)).status_code == 401


async def test_a_forged_refresh_token_neither_opens_nor_ends_a_session(http: httpx.AsyncClient) -> None:
    _, tokens = await register(http)
    session, generation, seal = tokens["refreshToken"].split(".")
    for bad in (f"{session}.0.{seal}", f"{session}.2.{seal}", f"{session}.{generation}.x", "x.y.z", "", "é.١.x"):
        assert (await http.post("/api/auth/refresh", json={"refreshToken": bad})).status_code == 401, bad
    assert await profile_status(http, tokens) == 200


async def test_a_browser_is_known_by_cookie_from_our_own_pages_only(http: httpx.AsyncClient) -> None:
    email, _ = await register(http)
    login = await http.post("/api/auth/login", json={"email": email, "password": PASSWORD})
    cookies = {line.split("=")[0]: line for line in login.headers.get_list("set-cookie")}
    assert all("HttpOnly" in line and "SameSite=lax" in line for line in cookies.values())
    assert "Path=/api/auth" in cookies["mercato_refresh"]
    assert (await http.get("/api/auth/profile")).status_code == 200
    change = {"fullName": "Browser"}
    for headers in (
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://shop.test.evil.test"},
    ):
        refused = await http.patch("/api/auth/profile", json=change, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "bad_origin"), headers
        assert (await http.post("/api/auth/refresh", headers=headers)).status_code == 403
    assert (await http.post("/api/auth/logout", headers={"Origin": "https://evil.test"})).status_code == 403
    own = {"Origin": "http://shop.test"}
    assert (await http.patch("/api/auth/profile", json=change, headers=own)).status_code == 200
    assert (await http.post("/api/auth/refresh", headers=own)).status_code == 200
    # no browser leaves out both headers: a program that keeps cookies
    assert (await http.patch("/api/auth/profile", json=change)).status_code == 200
    assert (await http.post("/api/auth/refresh")).status_code == 200
    assert (await http.post("/api/auth/logout", headers=own)).status_code == 204
    assert not http.cookies
    assert (await http.get("/api/auth/profile")).status_code == 401


async def test_another_site_cannot_sign_a_browser_in(http: httpx.AsyncClient) -> None:
    email, _ = await register(http)
    body = {"email": email, "password": PASSWORD}
    answer = await http.post("/api/auth/login", json=body, headers={"Origin": "https://evil.test"})
    assert answer.status_code == 403


async def test_production_cookies_are_bound_to_the_host_over_tls(settings: Settings) -> None:
    production = Settings(
        environment="production",
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        secret_key="not the development one",
        signing_key=signing_key(settings),
        processor_api_key="sk_live_x",
        webhook_secret="whsec_x",
        require_verified=False,
    )
    async with serving(create_app(production, [Service.USERS])) as http:
        email = fresh_address()
        body = {"email": email, "password": PASSWORD}
        await http.post("/api/auth/register", json=body | {"fullName": "Ada"})
        login = await http.post("/api/auth/login", json=body)
    cookies = {line.split("=")[0]: line for line in login.headers.get_list("set-cookie")}
    assert cookies.keys() == {"__Host-mercato_access", "__Secure-mercato_refresh"}
    assert all("Secure" in line and "HttpOnly" in line and "Domain" not in line for line in cookies.values())
    assert "Path=/;" in cookies["__Host-mercato_access"] + ";"


def another_service(settings: Settings) -> FastAPI:
    """An app without the users service that asks who is calling."""
    app = create_app(settings, [Service.NOTIFICATIONS])

    @app.get("/who")
    async def who(caller: CurrentUser) -> dict[str, str]:
        return {"user": str(caller.user_id)}

    return app


async def test_another_service_fetches_the_key_and_sees_a_logout_at_once(
    http: httpx.AsyncClient, users_app: FastAPI, settings: Settings, tmp_path: Path
) -> None:
    _, tokens = await register(http)
    alone = settings.model_copy(update={"data_dir": tmp_path, "users_url": "http://127.0.0.1:1"})
    app = another_service(alone)
    async with serving(app) as elsewhere:
        assert (await elsewhere.get("/who", headers=bearer(tokens))).status_code == 503
        client = UsersClient(internal_http(alone, "", users_app))
        app.state.resources.tokens._fetch = client.keys
        assert (await elsewhere.get("/who", headers=bearer(tokens))).json() == {"user": tokens["userId"]}
        await http.post("/api/auth/logout", headers=bearer(tokens))
        assert (await elsewhere.get("/who", headers=bearer(tokens))).status_code == 401
    assert not is_there(tmp_path / "signing.pem")


async def test_without_valkey_the_users_service_is_asked_and_without_both_nobody_is_let_in(
    http: httpx.AsyncClient, users_app: FastAPI, settings: Settings
) -> None:
    _, tokens = await register(http)
    _, ended = await register(http)
    await http.post("/api/auth/logout", headers=bearer(ended))
    cut_off = settings.model_copy(
        update={"redis_url": CLOSED, "users_url": "http://127.0.0.1:1", "signing_key": SecretStr(signing_key(settings))}
    )
    app = another_service(cut_off)
    async with serving(app) as elsewhere:
        nobody = await elsewhere.get("/who", headers=bearer(tokens))
        assert (nobody.status_code, nobody.json()["code"]) == (503, "dependency_unavailable")
        assert "Retry-After" in nobody.headers
        app.state.resources.users = UsersClient(internal_http(cut_off, "", users_app))
        assert (await elsewhere.get("/who", headers=bearer(tokens))).status_code == 200
        assert (await elsewhere.get("/who", headers=bearer(ended))).status_code == 401


async def test_users_who_log_out_while_valkey_is_away_stay_out(settings: Settings) -> None:
    blind = settings.model_copy(update={"redis_url": CLOSED})
    async with serving(create_app(blind, [Service.USERS])) as http:
        _, tokens = await register(http)
        assert await profile_status(http, tokens) == 200
        assert (await http.post("/api/auth/logout", headers=bearer(tokens))).status_code == 204
        assert await profile_status(http, tokens) == 401
    # the other process, which sees Valkey, writes what this one could not
    async with serving(create_app(settings, [Service.USERS])) as http:

        async def known() -> bool:
            return await profile_status(http, tokens) == 401

        await until(known)


async def test_another_users_id_is_refused_before_anything_is_said_of_the_body(http: httpx.AsyncClient) -> None:
    _, mine = await register(http)
    _, other = await register(http)
    body = {"userId": other["userId"], "unknown": 1}
    assert (await http.patch("/api/auth/profile", json=body)).status_code == 401
    refused = await http.patch("/api/auth/profile", json=body, headers=bearer(mine))
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    query = {"userId": other["userId"]}
    assert (await http.get("/api/auth/profile", params=query, headers=bearer(mine))).status_code == 403
    query = {"userId": mine["userId"]}
    assert (await http.get("/api/auth/profile", params=query, headers=bearer(mine))).status_code == 200


async def test_internal_routes_do_not_exist_for_others(http: httpx.AsyncClient, settings: Settings) -> None:
    path = f"/internal/users/sessions/{uuid4()}"
    assert (await http.get(path)).status_code == 404
    assert (await http.get(path, headers={"X-Mercato-Service": "guess"})).status_code == 404
    answer = await http.get(path, headers={"X-Mercato-Service": service_credential(settings)})
    assert answer.json() == {"active": False}


async def test_guessing_a_password_is_slowed_down_but_knowing_it_is_not(settings: Settings) -> None:
    limited = settings.model_copy(update={"rate_limits": "on"})
    async with serving(create_app(limited, [Service.USERS])) as http:
        email, _ = await register(http)
        for _ in range(12):
            await sign_in(http, email)
        wrong = {"email": email, "password": "a wrong guess"}
        answers = [await http.post("/api/auth/login", json=wrong) for _ in range(12)]
        assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 2
        assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
        assert answers[-1].json()["code"] == "too_many_requests"
        still = await http.post("/api/auth/login", json={"email": email, "password": PASSWORD})
        assert still.status_code == 429


async def test_without_valkey_nothing_is_limited(settings: Settings) -> None:
    blind = settings.model_copy(update={"rate_limits": "on", "redis_url": CLOSED})
    async with serving(create_app(blind, [Service.USERS])) as http:
        wrong = {"email": fresh_address(), "password": "a wrong guess"}
        assert {(await http.post("/api/auth/login", json=wrong)).status_code for _ in range(12)} == {401}


def test_every_route_of_the_users_service_says_who_may_call() -> None:
    def guards(dependant: Any) -> set[Any]:
        return {dependant.call}.union(*(guards(inner) for inner in dependant.dependencies))

    routes = [route for route in users.router.routes if isinstance(route, APIRoute)]
    assert len(routes) > 10
    assert [route.path for route in routes if not guards(route.dependant) & GUARDS] == []


def test_staff_rights_follow_the_role() -> None:
    assert [role for role in Role if role.is_staff] == [Role.SUPPORT, Role.ADMIN]
