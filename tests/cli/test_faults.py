"""`mercato faults` as a person uses it, on a `mercato up` of its own: at steps, at the processor, at servers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.cli.test_up import PASSWORD, Installation, is_ready, make_installation, within
from tests.stack import HOST

SOON = {
    "MERCATO_ATTEMPT_SECONDS": "2",
    "MERCATO_WORKFLOW_TASK_SECONDS": "2",
    "MERCATO_RECONCILE_EVERY_SECONDS": "2",
    "MERCATO_RECONCILE_AFTER_SECONDS": "3",
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    installation = make_installation(tmp_path_factory.mktemp("faults") / ".mercato")
    installation.environment |= SOON
    installation.up()
    yield installation
    installation.mercato("down")


@pytest.fixture
def shopper(shop: Installation) -> Iterator[httpx.Client]:
    """Signed in, with something in the cart."""
    with httpx.Client(base_url=f"http://{HOST}:{shop.port}", timeout=20) as http:
        account = {"email": f"{uuid4().hex}@mercato.test", "password": PASSWORD}
        http.post("/api/auth/register", json={**account, "fullName": "Fay Faulty"}).raise_for_status()
        token = http.post("/api/auth/login", json=account).raise_for_status().json()["accessToken"]
        http.headers["Authorization"] = f"Bearer {token}"
        products = http.get("/api/products", params={"pageSize": 50}).json()["items"]
        product = next(one["id"] for one in products if one["available"] > 5)
        http.post("/api/cart/add", json={"productId": product, "quantity": 1}).raise_for_status()
        yield http


def faults(shop: Installation, *arguments: str, **environment: str) -> str:
    done = shop.mercato("faults", *arguments, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join(done.stdout.split())


def place(shopper: httpx.Client, key: str) -> httpx.Response:
    headers = {"Idempotency-Key": key, "Prefer": "wait=0"}
    return shopper.post("/api/orders/place", json={"paymentMethodId": "pm_card_visa"}, headers=headers)


def is_captured(shopper: httpx.Client, order_id: str) -> bool:
    order: dict[str, Any] = shopper.get(f"/api/orders/{order_id}").raise_for_status().json()
    return order["paymentStatus"] == "captured"


def restarts(shop: Installation, program: str) -> int:
    return next(int(one["restarts"]) for one in shop.running["programs"] if one["name"] == program)


@contextmanager
def holding(shop: Installation, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A command that holds a server, once it says that it does."""
    command = [sys.executable, "-m", "cli.main", "faults", "set", *arguments]
    environment = shop.environment | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as held:
        assert held.stdout is not None
        assert "for 60 s" in held.stdout.readline()
        yield held
        held.kill()


def test_what_is_armed_is_told_listed_and_cleared(shop: Installation) -> None:
    said = faults(shop, "set", "worker", "error", "--step", "reserve", "--after", "--rate", "0.25", "--times", "0")
    assert "after the effect of reserve, for 25% of the orders, until it is cleared." in said
    assert "The API kills itself" in faults(shop, "set", "api", "crash", "--order", str(uuid4()))
    one = faults(shop, "set", "processor", "reply_lost", "--rate", "0.1", "--operations", "confirm", "--times", "0")
    # of confirms only: reconciliation asks this processor now and then, and would use it up
    two = faults(shop, "set", "processor", "silent", "--seconds", "2", "--operations", "confirm")
    assert "reply_lost" in one
    assert "silent (2 s)" in two
    listed = faults(shop, "list")
    for words in ("worker, reserve", "api, start_checkout", "p1 processor", "p2 processor", "10% of them"):
        assert words in listed
    assert "1 cleared" in faults(shop, "clear", "p1")
    listed = faults(shop, "list")
    assert "reply_lost" not in listed
    assert "silent" in listed
    assert "1 cleared" in faults(shop, "clear", said.split()[0])
    assert "worker" not in faults(shop, "list")
    assert "2 cleared" in faults(shop, "clear")
    assert "Nothing goes wrong on purpose" in faults(shop, "list")


@pytest.mark.parametrize(
    "arguments",
    [
        ("worker", "crash"),
        ("worker", "crash", "--step", "no_such_step"),
        ("worker", "off"),
        ("api", "hang"),
        ("nobody", "crash"),
        ("processor", "no_such_mode"),
        ("worker", "error", "--step", "reserve", "--order", "7"),
        ("worker", "error", "--step", "reserve", "--customer", "7"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(shop: Installation, arguments: tuple[str, ...]) -> None:
    done = shop.mercato("faults", "set", *arguments)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "Nothing goes wrong on purpose" in faults(shop, "list")


def test_production_knows_no_faults(shop: Installation) -> None:
    done = shop.mercato("faults", "list", MERCATO_ENVIRONMENT="production", MERCATO_SECRET_KEY="x" * 40)
    assert done.returncode == 1
    assert "production" in done.stderr


def test_a_worker_that_shall_crash_once_does_and_the_order_is_sold(shop: Installation, shopper: httpx.Client) -> None:
    before = restarts(shop, "worker")
    faults(shop, "set", "worker", "crash", "--step", "authorize", "--after")
    order_id = place(shopper, "crash").json()["orderId"]
    assert within(30, lambda: is_captured(shopper, order_id))
    assert restarts(shop, "worker") == before + 1
    assert "Nothing goes wrong on purpose" in faults(shop, "list")


def test_an_api_that_crashes_before_the_workflow_starts_loses_no_order(
    shop: Installation, shopper: httpx.Client
) -> None:
    """R19: the row is written, the client never hears of it, nobody repeats; reconciliation starts it."""
    faults(shop, "set", "api", "crash")
    with pytest.raises(httpx.TransportError):
        place(shopper, "orphan")
    assert within(20, lambda: is_ready(shop))
    (order,) = shopper.get("/api/orders/history").raise_for_status().json()["items"]
    assert within(30, lambda: is_captured(shopper, order["id"]))
    # the dead process still holds the key for a few seconds: 409, try again
    assert within(15, lambda: place(shopper, "orphan").status_code == 201)
    again = place(shopper, "orphan")
    assert again.json()["orderId"] == order["id"]
    assert again.headers["Idempotent-Replayed"] == "true"


def test_an_api_that_crashes_after_the_start_is_answered_the_same_order(
    shop: Installation, shopper: httpx.Client
) -> None:
    faults(shop, "set", "api", "error", "--after")
    refused = place(shopper, "again")
    assert refused.status_code == 503
    assert within(30, lambda: is_captured(shopper, refused.json()["orderId"]))
    assert place(shopper, "again").json()["orderId"] == refused.json()["orderId"]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda one: one.name)
def test_a_paused_postgresql_goes_on_however_the_command_ends(shop: Installation, end: signal.Signals) -> None:
    pid = shop.pid_of("postgres")
    with holding(shop, "postgres", "pause", "--seconds", "60") as held:
        assert _state(pid) == "T"
        with pytest.raises(httpx.TimeoutException):
            httpx.get(f"http://{HOST}:{shop.port}/api/products/1", timeout=1)
        held.send_signal(end)
        assert within(5, lambda: _state(pid) != "T")
    assert within(10, lambda: is_ready(shop))
    assert shop.pid_of("postgres") == pid


def test_a_pause_ends_by_itself(shop: Installation) -> None:
    begun = time.monotonic()
    said = faults(shop, "set", "worker", "pause", "--seconds", "1")
    assert "stands still for 1 s" in said
    assert "goes on" in said
    assert time.monotonic() - begun >= 1
    assert _state(shop.pid_of("worker")) != "T"


def test_valkey_hears_nobody_for_a_while_and_then_everybody(shop: Installation) -> None:
    pid = shop.pid_of("valkey")
    with holding(shop, "valkey", "off", "--seconds", "60") as held:
        assert within(10, lambda: shop.get("/health/ready").json()["status"] == "degraded")
        held.send_signal(signal.SIGINT)
    assert within(10, lambda: shop.get("/health/ready").json()["status"] == "ready")
    assert shop.pid_of("valkey") == pid


def test_a_killed_server_comes_back(shop: Installation) -> None:
    pid = shop.pid_of("postgres")
    assert "killed" in faults(shop, "set", "postgres", "kill")
    assert within(20, lambda: shop.pid_of("postgres") != pid and is_ready(shop))
    assert not os.path.exists(f"/proc/{pid}")


def _state(pid: int) -> str:
    """R, S, T (stopped) and so on."""
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0]
