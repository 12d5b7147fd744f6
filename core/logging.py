"""One log: loguru, one JSON object a line on stdout; standard logging is routed in, secrets are taken out."""

import json
import logging
import sys
import traceback
from typing import TYPE_CHECKING, Any

from loguru import logger
from opentelemetry import trace

from core.redaction import one_line, redact, redact_text
from core.settings import Settings

if TYPE_CHECKING:
    from loguru import Message, Record

CONTEXT_KEYS = ("request_id", "trace_id", "span_id", "order_id")

# They tell of every request or heartbeat at INFO or DEBUG, some with the payload.
_QUIET = ("httpx", "httpcore", "sse_starlette", "asyncio", "urllib3", "stripe", "opentelemetry", "multipart", "hpack")
_OWN_HANDLERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "stripe", "alembic")


def configure_logging(settings: Settings, service: str) -> None:
    """Send loguru and standard logging to stdout, under the name `service`; a repeat replaces what was set before.

    Add context with `with logger.contextualize(order_id=...)`. Never pass a user's text as the format string.
    """
    logger.remove()
    logger.configure(extra={"service": service}, patcher=_complete)
    logger.add(
        _write_json if settings.log_format == "json" else _write_text,
        level=settings.log_level.upper(),
        format="{message}",  # the sinks render the record themselves
        diagnose=False,  # it would print the values of local variables
        backtrace=False,
        catch=True,
    )
    _route_standard_logging(settings.log_level.upper())


def _route_standard_logging(level: str) -> None:
    logging.root.handlers = [_IntoLoguru()]
    logging.root.setLevel(level)
    for name in _OWN_HANDLERS:
        other = logging.getLogger(name)
        other.handlers = []
        other.propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)


class _IntoLoguru(logging.Handler):
    """Hands a standard record on with its own place, its level and what Temporal put beside it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        extra = {key: getattr(record, key) for key in CONTEXT_KEYS if hasattr(record, key)}

        def place(own: "Record") -> None:
            own["name"], own["function"], own["line"] = record.name, record.funcName, record.lineno

        bound = logger.bind(**extra).patch(place)
        bound.opt(exception=record.exc_info).log(level, "{}", record.getMessage())


def _complete(record: "Record") -> None:
    """Runs once for each record, before any sink: trace ids in, secrets out."""
    extra = record["extra"]
    span = trace.get_current_span().get_span_context()
    if span.is_valid and "trace_id" not in extra:
        extra["trace_id"] = trace.format_trace_id(span.trace_id)
        extra["span_id"] = trace.format_span_id(span.span_id)
    record["message"] = one_line(redact_text(record["message"]))
    for key, value in extra.items():
        extra[key] = redact(key, value)


def exception_text(record: "Record") -> str | None:
    """The stack as text, without secrets and without values of variables; None when nothing was raised."""
    error = record["exception"]
    if error is None or error.type is None:
        return None
    return redact_text("".join(traceback.format_exception(error.type, error.value, error.traceback))).rstrip()


def _write_json(message: "Message") -> None:
    record = message.record
    extra = dict(record["extra"])
    line: dict[str, Any] = {
        "time": record["time"].astimezone().isoformat(timespec="milliseconds"),
        "level": record["level"].name,
        "message": record["message"],
        "service": extra.pop("service", None),
        "logger": record["name"],
    }
    line.update({key: str(extra.pop(key)) for key in CONTEXT_KEYS if key in extra})
    if extra:
        line["extra"] = extra
    if (text := exception_text(record)) is not None:
        line["exception"] = text
    sys.stdout.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def _write_text(message: "Message") -> None:
    record = message.record
    extra = dict(record["extra"])
    service = extra.pop("service", "-")
    extra.pop("span_id", None)
    known = " ".join(f"{key}={value}" for key, value in extra.items())
    time = record["time"].strftime("%H:%M:%S.%f")[:-3]
    sys.stdout.write(
        f"{time} {record['level'].name:<7} {service}: {record['message']}{' | ' if known else ''}{known}\n"
    )
    if (text := exception_text(record)) is not None:
        sys.stdout.write("".join(f"    {line}\n" for line in text.splitlines()))
    sys.stdout.flush()
