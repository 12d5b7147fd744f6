"""Accounts over HTTP: who gets in, who does not, and what may be learnt from an answer."""

import asyncio
import time
from statistics import median
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from api.main import create_app
from core.settings import Settings
from models.types import Service
from tests.api.accounts import PASSWORD, bearer, fresh_address, mailed_token, profile_status, register, serving, sign_in


async def test_a_registered_shopper_signs_in_and_reads_their_profile(http: httpx.AsyncClient) -> None:
    email, tokens = await register(http)
    assert tokens.keys() == {"accessToken", "refreshToken", "expiresIn", "userId"}
    assert tokens["expiresIn"] == 300
    assert UUID(tokens["userId"]).version == 7
    profile = await http.get("/api/auth/profile", headers=bearer(tokens))
    assert profile.json() == {"userId": tokens["userId"], "email": email, "fullName": "Ada L.", "role": "shopper"}


async def test_an_address_is_one_account_whatever_its_case(http: httpx.AsyncClient) -> None:
    email, tokens = await register(http)
    again = await sign_in(http, email.upper())
    assert again["userId"] == tokens["userId"]


async def test_register_answers_the_same_for_a_known_address_and_changes_nothing(http: httpx.AsyncClient) -> None:
    email, _ = await register(http)
    body = {"email": email, "password": "somebody elses guess", "fullName": "Mallory"}
    known = await http.post("/api/auth/register", json=body)
    unknown = await http.post("/api/auth/register", json=body | {"email": fresh_address()})
    assert (known.status_code, known.content) == (unknown.status_code, unknown.content)
    refused = await http.post("/api/auth/login", json={"email": email, "password": body["password"]})
    assert refused.status_code == 401


@pytest.mark.parametrize("path", ["login", "forgot-password"])
async def test_a_known_and_an_unknown_address_get_the_same_answer(http: httpx.AsyncClient, path: str) -> None:
    email, _ = await register(http)

    def body_of(address: str) -> dict[str, str]:
        return {"email": address} | ({"password": "not the password"} if path == "login" else {})

    known = await http.post(f"/api/auth/{path}", json=body_of(email))
    unknown = await http.post(f"/api/auth/{path}", json=body_of(fresh_address()))
    assert known.status_code == unknown.status_code == (401 if path == "login" else 202)
    strip = {"traceId"}
    assert {k: v for k, v in known.json().items() if k not in strip} == {
        k: v for k, v in unknown.json().items() if k not in strip
    }
    if path == "login":
        assert known.json()["code"] == "invalid_credentials"


async def test_a_known_and_an_unknown_address_cost_the_same_time(http: httpx.AsyncClient) -> None:
    email, _ = await register(http)

    async def seconds(path: str, address: str) -> float:
        body = {"email": address, "password": "not the password", "fullName": "X"}
        if path != "register":
            del body["fullName"]
        if path == "forgot-password":
            del body["password"]
        started = time.perf_counter()
        await http.post(f"/api/auth/{path}", json=body)
        return time.perf_counter() - started

    for path in ("login", "register", "forgot-password"):
        pairs = [(await seconds(path, email), await seconds(path, fresh_address())) for _ in range(20)]
        known, unknown = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
        assert 0.5 < known / unknown < 2, f"{path}: {known:.4f} against {unknown:.4f} s"


@pytest.mark.parametrize(
    "extra",
    [
        {"is_superuser": True},
        {"isSuperuser": True},
        {"is_verified": True},
        {"isActive": True},
        {"role": "admin"},
        {"id": str(uuid4())},
        {"userId": str(uuid4())},
        {"hashedPassword": "x"},
        {"createdAt": "2020-01-01"},
    ],
)
async def test_fields_that_are_not_ours_to_give_are_refused(http: httpx.AsyncClient, extra: dict[str, Any]) -> None:
    email, tokens = await register(http)
    new = {"email": fresh_address(), "password": PASSWORD, "fullName": "Eve"}
    assert (await http.post("/api/auth/register", json=new | extra)).status_code == 422
    login = {"email": email, "password": PASSWORD}
    assert (await http.post("/api/auth/login", json=login | extra)).status_code == 422
    change = await http.patch("/api/auth/profile", json={"fullName": "Eve"} | extra, headers=bearer(tokens))
    assert change.status_code == (403 if "userId" in extra else 422)  # another's id is refused as such
    profile = await http.get("/api/auth/profile", headers=bearer(tokens))
    assert profile.json()["role"] == "shopper"
    assert profile.json()["fullName"] == "Ada L."


@pytest.mark.parametrize(
    "password",
    ["short", "x" * 257, "ü" * 129, "password123", "PassWord123", "aaaaaaaaaa", "same@mercato.test", 12345678],
)
async def test_a_bad_password_is_refused(http: httpx.AsyncClient, password: Any) -> None:
    body = {"email": "same@mercato.test", "password": password, "fullName": "Ada"}
    assert (await http.post("/api/auth/register", json=body)).status_code == 422


@pytest.mark.parametrize("password", ["ab cd ef", "x1" * 128, "🔑🔑🔑🔑 🔑🔑🔑🔒", "alllowercaseletters"])
async def test_any_other_password_is_taken(http: httpx.AsyncClient, password: str) -> None:
    email = fresh_address()
    await http.post("/api/auth/register", json={"email": email, "password": password, "fullName": "Ada"})
    await sign_in(http, email, password)


@pytest.mark.parametrize("email", ["nobody", "a@b@c.de", "", "x" * 400 + "@a.de", None, 7, "a\r\nb@mercato.test"])
async def test_what_is_no_address_is_refused(http: httpx.AsyncClient, email: Any) -> None:
    body = {"email": email, "password": PASSWORD, "fullName": "Ada"}
    assert (await http.post("/api/auth/register", json=body)).status_code == 422


async def test_a_huge_password_at_login_is_just_wrong(http: httpx.AsyncClient) -> None:
    email, _ = await register(http)
    answer = await http.post("/api/auth/login", json={"email": email, "password": "x" * 1000})
    assert answer.status_code == 401


async def test_a_new_password_needs_the_old_one_and_ends_all_sessions(http: httpx.AsyncClient) -> None:
    email, tokens = await register(http)
    other = await sign_in(http, email)
    change = {"password": "another quiet harbour"}
    assert (await http.patch("/api/auth/profile", json=change, headers=bearer(tokens))).status_code == 422
    wrong = await http.patch(
        "/api/auth/profile", json=change | {"currentPassword": "a wrong guess"}, headers=bearer(tokens)
    )
    assert (wrong.status_code, wrong.json()["code"]) == (403, "wrong_password")
    weak = {"password": "password123", "currentPassword": PASSWORD}
    assert (await http.patch("/api/auth/profile", json=weak, headers=bearer(tokens))).status_code == 422
    right = await http.patch("/api/auth/profile", json=change | {"currentPassword": PASSWORD}, headers=bearer(tokens))
    assert right.status_code == 200
    assert [await profile_status(http, ended) for ended in (tokens, other)] == [401, 401]
    assert (await http.post("/api/auth/login", json={"email": email, "password": PASSWORD})).status_code == 401
    await sign_in(http, email, change["password"])


async def test_a_new_address_needs_the_password_and_ends_the_other_sessions(http: httpx.AsyncClient) -> None:
    email, tokens = await register(http)
    other = await sign_in(http, email)
    change = {"email": fresh_address()}
    assert (await http.patch("/api/auth/profile", json=change, headers=bearer(tokens))).status_code == 422
    changed = await http.patch("/api/auth/profile", json=change | {"currentPassword": PASSWORD}, headers=bearer(tokens))
    assert changed.json()["email"] == change["email"]
    assert [await profile_status(http, tokens), await profile_status(http, other)] == [200, 401]


async def test_a_taken_address_is_not_taken_over_and_not_told_by_status(http: httpx.AsyncClient) -> None:
    theirs, _ = await register(http)
    mine, tokens = await register(http)
    body = {"email": theirs.upper(), "currentPassword": PASSWORD}
    answer = await http.patch("/api/auth/profile", json=body, headers=bearer(tokens))
    assert (answer.status_code, answer.json()["email"]) == (200, mine)


async def test_a_reset_token_works_once_and_ends_all_sessions(http: httpx.AsyncClient, settings: Settings) -> None:
    email, tokens = await register(http)
    await http.post("/api/auth/forgot-password", json={"email": email})
    body = {"token": await mailed_token(settings, "reset", email), "password": "a third quiet harbour"}
    weak = await http.post("/api/auth/reset-password", json=body | {"password": "password123"})
    assert weak.status_code == 422
    assert (await http.post("/api/auth/reset-password", json=body)).status_code == 204
    assert await profile_status(http, tokens) == 401
    again = await http.post("/api/auth/reset-password", json=body | {"password": "a fourth quiet harbour"})
    assert (again.status_code, again.json()["code"]) == (400, "invalid_token")
    await sign_in(http, email, "a third quiet harbour")


async def test_twenty_resets_with_one_token_change_the_password_once(
    http: httpx.AsyncClient, settings: Settings
) -> None:
    email, _ = await register(http)
    await http.post("/api/auth/forgot-password", json={"email": email})
    token = await mailed_token(settings, "reset", email)
    answers = await asyncio.gather(
        *(
            http.post("/api/auth/reset-password", json={"token": token, "password": f"quiet harbour number {n}"})
            for n in range(20)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [204] + [400] * 19


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "ey" * 900])
async def test_a_bad_mail_token_is_refused(http: httpx.AsyncClient, token: str) -> None:
    verify = await http.post("/api/auth/verify", json={"token": token})
    reset = await http.post("/api/auth/reset-password", json={"token": token, "password": PASSWORD})
    assert (verify.status_code, reset.status_code) == (400, 400)


async def test_where_addresses_must_be_verified_sign_in_and_a_new_address_wait_for_it(settings: Settings) -> None:
    strict = settings.model_copy(update={"require_verified": True})
    async with serving(create_app(strict, [Service.USERS])) as http:
        email = fresh_address()
        body = {"email": email, "password": PASSWORD}
        await http.post("/api/auth/register", json=body | {"fullName": "Ada"})
        assert (await http.post("/api/auth/login", json=body | {"password": "wrong guess"})).status_code == 401
        early = await http.post("/api/auth/login", json=body)
        assert (early.status_code, early.json()["code"]) == (403, "not_verified")
        token = await mailed_token(settings, "verify", email)
        assert (await http.post("/api/auth/verify", json={"token": token})).status_code == 204
        assert (await http.post("/api/auth/verify", json={"token": token})).status_code == 204
        tokens = await sign_in(http, email)
        change = {"email": fresh_address(), "currentPassword": PASSWORD}
        waiting = await http.patch("/api/auth/profile", json=change, headers=bearer(tokens))
        assert waiting.json()["email"] == email
        token = await mailed_token(settings, "change_email", change["email"])
        assert (await http.post("/api/auth/verify", json={"token": token})).status_code == 204
        assert await profile_status(http, tokens) == 401
        await sign_in(http, change["email"])
