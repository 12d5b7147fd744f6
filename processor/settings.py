"""What the processor is started with. Flags win over the environment (`PROCESSOR_*`)."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """`faults` is the JSON of `PUT /test/faults`; `search_lag` (seconds) hides young intents from search only."""

    database_url: str
    host: str = "127.0.0.1"
    port: int = 5010
    public_url: str = ""  # where a browser finds the 3-D Secure page; empty: as the request was addressed
    pool_size: int = 10
    search_lag: int = 0
    faults: str = ""
    webhook_url: str = ""  # who is told of events, besides the endpoints made by the API
    webhook_secret: str = ""
    webhook_account: str = ""  # the API key whose account's events they are; empty: everybody's
    webhook_events: str = ""  # types separated by commas; empty: all
    webhook_delay: float = 0.3  # seconds; a real processor's answer is first, too
    log_level: str = "info"


def read_settings(argv: Sequence[str] | None = None) -> Settings:
    """Parse flags, each with its environment variable as default. Exits with a message if no database is given."""
    env = os.environ
    parser = argparse.ArgumentParser(prog="processor", description="A mock payment processor that speaks Stripe's API.")
    add = parser.add_argument
    add("--host", default=env.get("PROCESSOR_HOST", "127.0.0.1"))
    add("--port", type=int, default=env.get("PROCESSOR_PORT", "5010"))
    add("--database-url", default=env.get("PROCESSOR_DATABASE_URL", ""), help="postgresql://user:password@host/db")
    add("--public-url", default=env.get("PROCESSOR_PUBLIC_URL", ""))
    add("--pool-size", type=int, default=env.get("PROCESSOR_POOL_SIZE", "10"))
    add("--search-lag", type=int, default=env.get("PROCESSOR_SEARCH_LAG", "0"), help="seconds")
    add("--faults", default=env.get("PROCESSOR_FAULTS", ""), help="JSON, as for PUT /test/faults")
    add("--webhook-url", default=env.get("PROCESSOR_WEBHOOK_URL", ""), help="is told of events")
    add("--webhook-secret", default=env.get("PROCESSOR_WEBHOOK_SECRET", ""), help="whsec_...")
    add(
        "--webhook-account",
        default=env.get("PROCESSOR_WEBHOOK_ACCOUNT", ""),
        help="sk_test_...; none: everybody",
    )
    add("--webhook-events", default=env.get("PROCESSOR_WEBHOOK_EVENTS", ""), help="types, separated by commas")
    add("--webhook-delay", type=float, default=env.get("PROCESSOR_WEBHOOK_DELAY", "0.3"), help="seconds")
    add("--log-level", default=env.get("PROCESSOR_LOG_LEVEL", "info"))
    options = parser.parse_args(argv)
    if not options.database_url:
        parser.error("--database-url (or PROCESSOR_DATABASE_URL) is required")
    if options.webhook_url and not options.webhook_secret:
        parser.error("--webhook-url needs --webhook-secret")
    return Settings(**vars(options))
