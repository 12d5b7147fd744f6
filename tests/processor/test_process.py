import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import httpx
import pytest

from tests.processor.process import running

HEADERS = {"Authorization": "Bearer sk_test_process"}
# alone; balanced only over two transactions; balanced only over two currencies; a sound one beside an odd one
ODD_LEGS = (
    "('txn_x', 1, 'eur')",
    "('txn_x', 1, 'eur'), ('txn_y', -1, 'eur')",
    "('txn_x', 1, 'eur'), ('txn_x', -1, 'usd')",
    "('txn_x', 1, 'eur'), ('txn_x', -1, 'eur'), ('txn_y', 1, 'eur')",
)
PAY = {"amount": "1000", "currency": "eur", "payment_method": "pm_card_visa", "confirm": "true"}


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
        for legs in ODD_LEGS:
            with pytest.raises(asyncpg.CheckViolationError):
                await connection.execute(
                    "INSERT INTO processor.entry (txn, kind, account, payment_intent, charge, ledger, amount, currency)"
                    " SELECT txn, 'capture', 'a', 'pi_x', 'ch_x', 'merchant', amount, currency "
                    f"FROM (VALUES {legs}) AS leg (txn, amount, currency)"
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
