import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import asyncpg
import httpx
import pytest

HEADERS = {"Authorization": "Bearer sk_test_process"}
PAY = {"amount": "1000", "currency": "eur", "payment_method": "pm_card_visa", "confirm": "true"}


@contextmanager
def running(database_url: str, *flags: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A processor process of its own, ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "processor", "--port", str(port), *flags]
    process = subprocess.Popen(command, env={**os.environ, "PROCESSOR_DATABASE_URL": database_url})
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, process)
        yield url, process
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("the processor did not become ready")


def test_sigterm_ends_it_within_two_seconds_even_with_a_silent_request(processor_url, platform_database_url):
    with running(platform_database_url) as (url, process), httpx.Client(base_url=url, headers=HEADERS) as http:
        http.get("/health")  # a connection that is kept alive
        http.put("/test/faults", json={"mode": "silent", "seconds": 60, "times": 1})
        with ThreadPoolExecutor(1) as threads:
            silent = threads.submit(httpx.get, f"{url}/v1/refunds", headers=HEADERS, timeout=30)
            while http.get("/test/faults").json()["data"]:
                time.sleep(0.02)
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.wait(10)
            assert time.monotonic() - begun < 2
            with pytest.raises(httpx.TransportError):
                silent.result()


def test_what_was_answered_survives_a_kill(processor_url, platform_database_url):
    headers = {**HEADERS, "Idempotency-Key": f"kill-{time.time()}"}
    with running(platform_database_url) as (url, process):
        first = httpx.post(f"{url}/v1/payment_intents", data=PAY, headers=headers)
        process.kill()
    with running(platform_database_url) as (url, _):
        again = httpx.post(f"{url}/v1/payment_intents", data=PAY, headers=headers)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"


def test_faults_by_rate_come_from_the_command_line(processor_url, platform_database_url):
    with running(platform_database_url, "--faults", '{"mode": "error_503", "operations": ["list"]}') as (url, _):
        assert httpx.get(f"{url}/v1/refunds", headers=HEADERS).status_code == 503
        assert httpx.get(f"{url}/v1/refunds/re_x", headers=HEADERS).status_code == 404


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--database-url", "postgresql://nobody@127.0.0.1:1/none"], "database cannot be used"),
        (["--database-url", "postgresql://x", "--faults", '{"mode": "x"}'], "Unknown fault mode"),
        ([], "--database-url (or PROCESSOR_DATABASE_URL) is required"),
    ],
)
def test_what_cannot_start_says_why_in_a_sentence(flags, words):
    ended = subprocess.run([sys.executable, "-m", "processor", *flags], capture_output=True, text=True, timeout=30)
    assert ended.returncode != 0
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_the_books_are_append_only_and_balanced(account, platform_database_url):
    intent = await account.client().v1.payment_intents.create_async(
        {"amount": 1000, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
    )
    connection = await asyncpg.connect(platform_database_url)
    try:
        for statement in ("UPDATE processor.entry SET amount = 1", "DELETE FROM processor.entry"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"{statement} WHERE payment_intent = $1", intent.id)
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(
                "INSERT INTO processor.entry (txn, kind, account, payment_intent, charge, ledger, amount, currency) "
                "VALUES ('txn_x', 'capture', 'a', 'pi_x', 'ch_x', 'merchant', 1, 'eur')"
            )
    finally:
        await connection.close()


async def test_connections_lost_by_the_database_are_made_anew(account, platform_database_url):
    connection = await asyncpg.connect(platform_database_url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'processor' AND datname = current_database()"
    )
    await connection.close()
    client = account.client(retries=3)
    intent = await client.v1.payment_intents.create_async({"amount": 1000, "currency": "eur"})
    assert intent.status == "requires_payment_method"
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{account.url}/health")).json() == {"status": "ok", "database": "up"}
