"""Every setting, from the environment, prefix `MERCATO_`. Nothing else reads the environment."""

import hashlib
import hmac
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.types import Service

DEVELOPMENT_SECRET = "mercato-development-only"
DEVELOPMENT_WEBHOOK_SECRET = "whsec_mercato_development_only"

SERVICE_PORTS = {
    Service.USERS: 5001,
    Service.CATALOG: 5002,
    Service.CARTS: 5003,
    Service.ORDERS: 5004,
    Service.PAYMENTS: 5005,
    Service.NOTIFICATIONS: 5006,
}


class Settings(BaseSettings):
    """Seconds unless the name says otherwise; addresses left empty mean "the embedded one" to `mercato up`."""

    model_config = SettingsConfigDict(env_prefix="MERCATO_", extra="ignore")

    environment: Literal["development", "test", "production"] = "development"
    data_dir: Path = Path(".mercato")
    log_level: str = "INFO"
    log_format: Literal["json", "text"] = "json"

    # addresses; `mercato up` starts what is not given
    database_url: str = ""  # the owner's: migrations, seed and check only
    users_database_url: str = ""
    catalog_database_url: str = ""
    carts_database_url: str = ""
    orders_database_url: str = ""
    payments_database_url: str = ""
    notifications_database_url: str = ""
    redis_url: str = ""
    temporal_address: str = ""
    temporal_namespace: str = "default"
    temporal_ui_url: str = "http://127.0.0.1:8233"
    processor_url: str = ""
    processor_database_url: str = ""

    # a service that runs elsewhere: where its sisters find it
    users_url: str = ""
    catalog_url: str = ""
    carts_url: str = ""
    public_url: str = "http://127.0.0.1:8080"
    return_url: str = ""  # where a bank sends the shopper back to, with {order_id}; empty: the order itself
    trusted_proxies: str = ""  # addresses and networks whose X-Forwarded-For is believed; empty: nobody's

    # ports of what `mercato up` starts
    host: str = "127.0.0.1"
    port: int = 8080
    processor_port: int = 5010
    postgres_port: int = 54320  # not 5432: that may be your own
    redis_port: int = 63790
    temporal_port: int = 7233
    temporal_ui_port: int = 8233
    worker_metrics_port: int = 9464
    temporal_metrics_port: int = 0  # the SDK's own metrics of a worker; 0: none

    # secrets
    secret_key: SecretStr = SecretStr(DEVELOPMENT_SECRET)  # reset and verify tokens, calls between services
    signing_key: SecretStr = SecretStr("")  # PEM, Ed25519; empty: made in data_dir (development only)
    verify_key: str = ""  # PEM of its public half, for services that only check tokens
    processor_api_key: SecretStr = SecretStr("sk_test_mercato")
    webhook_secret: SecretStr = SecretStr(DEVELOPMENT_WEBHOOK_SECRET)  # signs what the processor tells us

    # rules
    currency: str = "EUR"
    shipping_flat_amount: int = 0  # minor units an order
    shipping_free_from_amount: int = 0  # minor units; 0: never free
    tax_basis_points: int = 0  # 1900 is 19 %
    reservation_ttl_seconds: int = 600
    place_wait_seconds: float = 3
    idempotency_ttl_days: int = 7
    access_token_seconds: int = 300
    refresh_token_seconds: int = 14 * 24 * 3600
    require_verified: bool | None = None  # None: only in production
    rate_limits: Literal["on", "off"] = "on"
    stream_heartbeat_seconds: float = 15
    streams_per_user: int = 20
    max_body_bytes: int = 256 * 1024

    # checkout
    fast_path: bool = True
    fast_step_seconds: float = 2
    attempt_seconds: float = 10  # one regular attempt of a step; a dead worker's is retried after it
    workflow_task_seconds: float = 10  # a dead worker's workflow task is given to another after it
    round_seconds: float = 60  # regular attempts before the order is marked needsAttention
    round_pause_seconds: float = 180  # until the next round starts by itself
    quarantine_seconds: float = 900  # a step that has killed three workers is not tried for so long
    reconcile_every_seconds: int = 30
    reconcile_after_seconds: int = 30  # how old before something open looks orphaned
    give_back_after_seconds: int = 600  # money at the processor that belongs to no sold order
    processor_timeout_seconds: float = 8

    # seeing
    otlp_endpoint: str = ""  # e.g. http://127.0.0.1:4318; empty: no traces leave the process
    trace_sample_ratio: float = 1  # of traces that begin here; one that came in with `traceparent` keeps its choice
    metrics_port: int = 0  # 0: /metrics on the API's own port
    docs: bool = False  # /docs and /openapi.json in production as well; elsewhere they are always there

    # fault injection, refused in production
    faults_file: str = ""  # what `mercato faults` has armed; `mercato up` has it in its data folder
    crash_at: str = ""  # "reserve:before", "capture:after", ...: the worker kills itself there, each time

    @model_validator(mode="after")
    def refuse_unsafe_production(self) -> Self:
        """Production starts with secrets of its own and without fault switches, or not at all."""
        if self.environment != "production":
            return self
        if self.secret_key.get_secret_value() == DEVELOPMENT_SECRET:
            raise ValueError("MERCATO_SECRET_KEY must be set in production")
        if not self.signing_key.get_secret_value() and not self.verify_key:
            raise ValueError("MERCATO_SIGNING_KEY (or MERCATO_VERIFY_KEY) must be set in production")
        if self.processor_api_key.get_secret_value() == "sk_test_mercato":
            raise ValueError("MERCATO_PROCESSOR_API_KEY must be set in production")
        if self.webhook_secret.get_secret_value() == DEVELOPMENT_WEBHOOK_SECRET:
            raise ValueError("MERCATO_WEBHOOK_SECRET must be set in production")
        if self.rate_limits == "off" or self.crash_at or self.faults_file:
            raise ValueError(
                "MERCATO_RATE_LIMITS=off, MERCATO_CRASH_AT and MERCATO_FAULTS_FILE are refused in production"
            )
        return self

    @property
    def verified_required(self) -> bool:
        return self.environment == "production" if self.require_verified is None else self.require_verified

    @property
    def present_faults_file(self) -> Path | None:
        """Where this installation's faults stand; nowhere in production."""
        if self.environment == "production":
            return None
        return Path(self.faults_file) if self.faults_file else self.data_dir.resolve() / "faults.json"

    @property
    def limits_rates(self) -> bool:
        return self.rate_limits == "on"

    def service_database_url(self, service: Service) -> str:
        """The address of `service`'s own role: as set, else derived from the owner's address."""
        explicit: str = getattr(self, f"{service.value}_database_url")
        return explicit or derived_role_url(self.database_url, role_name(service.value))


def role_name(schema: str) -> str:
    return f"mercato_{schema}"


def derived_role_url(owner_url: str, role: str) -> str:
    """`owner_url` with user `role` and a password that follows from the owner's, so that one secret is enough.

    A process that knows only its own role's address cannot go back from it to the owner's.
    """
    parts = urlsplit(owner_url)
    if not parts.password:
        raise ValueError("MERCATO_DATABASE_URL must carry a password, or set the service's own MERCATO_…_DATABASE_URL")
    secret = hmac.new(parts.password.encode(), role.encode(), hashlib.sha256).hexdigest()[:40]
    return urlunsplit(parts._replace(netloc=f"{role}:{quote(secret)}@{parts.hostname}:{parts.port or 5432}"))


@lru_cache
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
