"""What reaches stdout: one JSON object a line, with ids, without secrets."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from loguru import logger

from core.logging import configure_logging
from core.settings import Settings

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    configure_logging(Settings(log_level="DEBUG"), "test")
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_line_bears_service_level_and_context(lines: Lines) -> None:
    with logger.contextualize(order_id="o-1", request_id="r-1"):
        logger.bind(attempts=2).info("Paid {}", "at last")
    (line,) = lines()
    assert line["message"] == "Paid at last"
    assert (line["service"], line["level"]) == ("test", "INFO")
    assert (line["order_id"], line["request_id"]) == ("o-1", "r-1")
    assert line["extra"] == {"attempts": 2}


@pytest.mark.parametrize(
    "message",
    [
        "Authorization: Bearer canary.canary.canary",
        "called with bearer canary-canary",
        "Cookie: a=1; session=canary",
        "{'set-cookie': 'mercato_access=canary; Path=/'}",
        "token eyJhbGciOiJFZERTQSJ9.canary.canary",
        '{"password": "my canary \\" canary", "ok": 1}',
        "password=canary&user=1",
        "refresh_token: canary",
        "sent to canary.person+tag@shop.example today",
        "payment method pm_canary was refused",
        "paymentMethodId=canary",
        "key sk_test_canary",
        "pi_123_secret_canary",
        "postgresql://mercato:canary@127.0.0.1/db",
        "{'shippingAddress': {'name': 'canary', 'line1': 'canary street'}}",
        "PlaceOrder(shipping_address=Address(name='a canary', line1='b canary'), full_name='canary')",
        "line1='canary road 1' postal_code='canary'",
        "[SQL: INSERT ...]\n[parameters: ('canary', 1)]\n(Background)",
        "DETAIL:  Key (name)=(canary) already exists.",
        "1 validation error [type=int_type, input_value='canary', input_type=str]",
    ],
)
def test_no_secret_is_written_whatever_form_it_comes_in(lines: Lines, message: str) -> None:
    logger.info("{}", message)
    logging.getLogger("some.library").warning(message.replace("%", "%%"))
    logger.bind(note=message, inner={"list": [message]}).info("bound")
    try:
        raise ValueError(message)
    except ValueError:
        logger.exception("failed")
    written = lines()
    assert len(written) == 4
    assert "canary" not in json.dumps(written)


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "hashed_password",
        "accessToken",
        "Authorization",
        "cookie",
        "email",
        "customer_email",
        "address",
        "shipping_address",
        "fullName",
        "paymentMethodId",
        "secret_key",
        "api_key",
        "postalCode",
    ],
)
def test_a_telling_name_hides_any_value(lines: Lines, key: str) -> None:
    logger.bind(**{key: "canary", "deep": {key: ["canary"]}}).info("bound")
    assert "canary" not in json.dumps(lines())


def test_what_support_needs_stays_readable(lines: Lines) -> None:
    logger.bind(token_count=3, ip_address="10.0.0.1").info("Order {} of product {}: passed", "0192-ab", 7)
    (line,) = lines()
    assert line["message"] == "Order 0192-ab of product 7: passed"
    assert line["extra"] == {"token_count": 3, "ip_address": "10.0.0.1"}


@pytest.mark.parametrize("form", ["json", "text"])
def test_nobody_can_begin_a_line_of_his_own(capsys: pytest.CaptureFixture[str], form: Any) -> None:
    configure_logging(Settings(log_format=form), "test")
    logger.bind(agent="x\r\nFORGED").info("name {}", "a\nFORGED\u2028FORGED\x1b[31m")
    written = capsys.readouterr().out
    assert len(written.splitlines()) == 1
    assert "\x1b" not in written


def test_values_of_local_variables_are_not_written(lines: Lines) -> None:
    def fail() -> None:
        hidden = "can" + "ary"
        raise ValueError(len(hidden))

    try:
        fail()
    except ValueError:
        logger.exception("failed")
    (line,) = lines()
    assert "in fail" in line["exception"]
    assert "canary" not in json.dumps(line)


def test_chatty_libraries_are_silent_and_standard_logging_keeps_its_ids(lines: Lines) -> None:
    logging.getLogger("httpx").info("HTTP Request: GET /secret")
    logging.getLogger("sse_starlette.sse").debug("chunk: secret")
    logging.getLogger("temporalio.activity").info("Reserving", extra={"order_id": "o-2"})
    (line,) = lines()
    assert (line["message"], line["order_id"], line["logger"]) == ("Reserving", "o-2", "temporalio.activity")
