"""Settings and limits, read from environment variables named `POS_…`, and checked against each other at start."""

import base64
import binascii
import importlib
import secrets
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Self, cast

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from .business_days import is_time_zone
from .core.accounting.settlement import SETTLEMENT_PAUSE_S
from .core.credentials.device_keys import MASTER_KEY_BYTES_MIN, Keyring
from .core.errors import PosError
from .core.money import MAX_AMOUNT_MINOR
from .core.payments.rules import Limits, RiskHook, Rules, accept_all
from .core.protocol.asyncapi import WireLimits
from .core.rate_limits import FailureLimit
from .limits import (
    CLOCK_SKEW_S,
    PEER_SILENT_INTERVALS,
    AdmissionLimits,
    ApiLimits,
    AuthorizerLimits,
    ConversationLimits,
    DeviceLimits,
    DrainLimits,
    OutboxLimits,
    PinHasherLimits,
)

METRICS_TOKEN_CHARS_MIN = 16

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Minor = Annotated[int, Field(ge=0, le=MAX_AMOUNT_MINOR)]


class SettingsError(PosError):
    """A setting is missing or invalid; the text names it and a valid value."""


class Settings(BaseSettings):
    """All settings, read once at start. Names end in their unit."""

    model_config = SettingsConfigDict(env_prefix="POS_", env_ignore_empty=True, hide_input_in_errors=True, frozen=True)

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8080, description="port to listen on; 0 selects a free one")
    data_dir: Path | None = Field(None, description="directory of the keys and the embedded Postgres")
    database_url: SecretStr | None = Field(
        None, description="DSN of a Postgres of your own; unset, the embedded one runs"
    )
    postgres_bin_dir: Path | None = Field(
        None, description="directory of the programs for the embedded Postgres; unset, those of the package"
    )
    master_keys: SecretStr | None = Field(
        default=None, description="master keys as kid:base64[,kid:base64…]; the first one is used for new devices"
    )

    # connections
    heartbeat_s: Count = Field(20, description="interval of WebSocket pings")
    heartbeat_timeout_s: Positive = Field(20, description="time for a pong before a connection is closed")
    authentication_timeout_s: Count = Field(5, description="time to authenticate, or to send an HTTP request")
    frame_bytes_max: Count = Field(4096, description="length of a WebSocket message to the server")
    outbox_messages_max: Count = Field(512, description="unsent messages per connection")
    outbox_bytes_max: Count = Field(256 * 1024, description="length of the unsent messages per connection")
    socket_send_buffer_bytes: Count = Field(64 * 1024, description="kernel send buffer of a connection (SO_SNDBUF)")
    tcp_user_timeout_s: Positive = Field(30, description="time without an acknowledgment before a peer is dropped")
    connections_max: Count = Field(20_000, description="WebSocket connections of the server")
    trusted_proxies: str = Field("", description="addresses or networks of trusted proxies, separated by commas")
    address_connections_max: Count = Field(20_000, description="connections per address, which a whole shop may share")
    messages_per_s: Positive = Field(50, description="average rate of messages per connection")
    messages_burst: Count = Field(100, description="messages of a connection at once")
    bad_messages_per_s: Positive = Field(0.5, description="average rate of bad or surplus messages before a close")
    bad_messages_burst: Count = Field(20, description="bad or surplus messages of a connection at once")
    allowed_origins: frozenset[str] = Field(frozenset(), description="origins of web pages that may connect, as JSON")
    drain_timeout_s: Positive = Field(10, description="time for a shutdown to finish accepted operations")
    drain_reconnect_within_s: Count = Field(5, description="period over which devices spread their reconnects")
    revocation_check_s: Positive = Field(10, description="interval of the check for revoked keys of live connections")

    # resume
    resume_overlap_s: Positive = Field(30, description="overlap of a replay; above any transaction time and clock skew")
    resume_payments_max: Count = Field(200, description="payments of a page of a replay")

    # several servers on one database
    peers_alive_s: Positive = Field(2, description="interval at which servers announce themselves to each other")
    peers_queue_max: Count = Field(10_000, description="queued notices to other servers; others are read from rows")

    # codes and activation
    device_keys_cached_max: Count = Field(20_000, description="cached device keys; the least recently used is evicted")
    code_expired_steps: Count = Field(20, description="age in 30 s steps up to which a code is expired, not forged")
    bad_codes_max: Count = Field(10, description="forged codes per terminal within a period")
    bad_codes_window_s: Positive = Field(60, description="period in which forged codes are counted")
    activation_ttl_s: Positive = Field(24 * 3600, description="validity of an activation code")
    activation_body_bytes_max: Count = Field(1024, description="length of the body of an activation")
    activation_failures_max: Count = Field(20, description="wrong activation codes per address within a period")
    activation_failures_window_s: Positive = Field(60, description="period in which wrong activation codes are counted")
    addresses_tracked_max: Count = Field(10_000, description="addresses, and terminals, whose failures are counted")

    # REST API
    api_body_bytes_max: Count = Field(4096, description="length of the body of a REST request")
    api_timeout_s: Positive = Field(15, description="timeout of a request; the response is busy or unknown_outcome")
    api_requests_max: Count = Field(64, description="concurrent requests; further ones are busy")
    api_requests_per_s: Positive = Field(100, description="average rate of requests per API key")
    api_requests_burst: Count = Field(200, description="requests of an API key at once")
    api_keys_tracked_max: Count = Field(10_000, description="API keys whose rate is measured")
    api_reports_max: Count = Field(2, description="concurrent reads of merchants' lists and reports; further ones wait")
    api_report_timeout_s: Positive = Field(3, description="statement timeout of a list or report")
    api_key_failures_max: Count = Field(20, description="wrong API keys per address within a period")
    api_key_failures_window_s: Positive = Field(60, description="period in which wrong API keys are counted")

    # limits, in minor units; a day is the business day of `time_zone`
    time_zone: str = Field("UTC", description="time zone of business days, an IANA name such as Europe/Berlin")
    payment_minor_max: Minor = Field(1_000_000, description="largest payment")
    day_minor_max: Minor = Field(2_000_000, description="sum of a wallet's payments in a day")
    top_up_minor_max: Minor = Field(100_000, description="largest top-up")
    balance_minor_max: Minor = Field(1_000_000, description="largest balance of a wallet after a top-up")
    pin_free_minor_max: Minor = Field(5_000, description="largest payment without a PIN; 0 always requires the PIN")
    pin_free_day_count_max: Minor = Field(20, description="number of a wallet's payments without a PIN in a day")
    pin_free_day_minor_max: Minor = Field(20_000, description="sum of a wallet's payments without a PIN in a day")
    currency_limits: dict[str, Limits] = Field({}, description="the seven limits above for other currencies, as JSON")
    risk_hook: str | None = Field(None, description="module:function that can require a PIN or reject a payment")

    # a payment's life
    confirmation_s: Positive = Field(60, description="time that a pending payment waits for its PIN")
    expiry_check_s: Positive = Field(1, description="interval of the search for expired payments")
    expiry_batch_max: Count = Field(200, description="expired payments per search")
    cancel_window_s: Positive = Field(24 * 3600, description="time during which an approved payment can be canceled")
    refund_window_days: Positive = Field(365, description="time during which a payment can be refunded")
    refunds_max: Count = Field(50, description="refunds per payment")
    archive_min_age_days: Positive = Field(400, description="minimum age of payments that `pos-server archive` moves")
    archive_part_payments_max: Count = Field(50_000, description="payments per file of the archive")

    # PINs
    pin_payment_failures_max: Count = Field(3, description="wrong PINs per payment")
    pin_failures_max: Count = Field(5, description="consecutive wrong PINs before the wallet's PIN is locked")
    pin_lock_s: Positive = Field(24 * 3600, description="period for which a wallet's PIN stays locked")
    pin_workers: Count = Field(2, description="threads that verify PINs")
    pin_checks_max: Count = Field(64, description="queued PIN verifications; further ones are busy")
    pin_argon2_memory_kib: Count = Field(19_456, description="memory cost m of Argon2id (RFC 9106)")
    pin_argon2_passes: Count = Field(2, description="time cost t of Argon2id (RFC 9106)")

    # queries
    queries_per_s: Positive = Field(2, description="average rate of queries per connection")
    queries_burst: Count = Field(20, description="queries of a connection at once")
    connection_requests_max: Count = Field(4, description="concurrent queries and PIN verifications per connection")

    # authorizer
    queue_operations_max: Count = Field(10_000, description="operations that wait in the queue of the engine")
    device_operations_max: Count = Field(16, description="open operations per terminal or wallet")
    batch_lanes: Count = Field(2, description="concurrent batches, each with its own database connection")
    batch_operations_max: Count = Field(200, description="operations of a batch")
    batch_attempts_max: Count = Field(5, description="attempts of a batch after conflicts or lost connections")
    operation_deadline_s: Positive = Field(10, description="time after which a waiting operation is busy")
    batch_timeout_s: Positive = Field(5, description="time for an attempt of a batch")

    # telemetry
    metrics: bool = Field(True, description="collection of metrics for /metrics")
    metrics_token: SecretStr | None = Field(None, description="bearer token of /metrics; unset: access denied")
    trace_sample: Annotated[float, Field(ge=0, le=1)] = Field(0, description="share of payments that are traced")
    probe_timeout_s: Positive = Field(1, description="timeout of the database checks behind /readyz and /metrics")

    # database
    database_start_attempts: Count = Field(10, description="attempts to reach the database at start")
    database_start_pause_s: Positive = Field(0.5, description="pause between these attempts")
    database_connect_timeout_s: Positive = Field(
        5, description="time to connect, and for a statement outside the engine"
    )
    database_pool_max: Count = Field(5, description="database connections in addition to those of the engine")

    @field_validator("host")
    @classmethod
    def _host_is_not_empty(cls, value: str) -> str:
        if not value:
            raise ValueError("must be an address such as 127.0.0.1 or 0.0.0.0")
        return value

    @field_validator("metrics_token")
    @classmethod
    def _token_is_long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < METRICS_TOKEN_CHARS_MIN:
            raise ValueError(
                f"must have at least {METRICS_TOKEN_CHARS_MIN} characters; create one with: openssl rand -hex 16"
            )
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_networks(cls, value: str) -> str:
        parts = [part.strip() for part in value.split(",") if part.strip()]
        try:
            return ",".join(str(ip_network(part)) for part in parts)
        except ValueError:
            raise ValueError("must be addresses or networks such as 10.0.0.0/8,127.0.0.1") from None

    @field_validator("time_zone")
    @classmethod
    def _zone_exists(cls, value: str) -> str:
        if not is_time_zone(value):
            raise ValueError("must be an IANA time zone such as Europe/Berlin")
        return value

    @model_validator(mode="after")
    def _relations_hold(self) -> Self:
        if self.batch_operations_max > self.queue_operations_max:
            raise ValueError("POS_BATCH_OPERATIONS_MAX must not exceed POS_QUEUE_OPERATIONS_MAX")
        if self.batch_timeout_s > self.operation_deadline_s:
            raise ValueError("POS_BATCH_TIMEOUT_S must not exceed POS_OPERATION_DEADLINE_S")
        # A device may leave just before its server finds out that another one ended without sending its notices.
        if self.resume_overlap_s <= self.notice_lag_s + (PEER_SILENT_INTERVALS + 1) * self.peers_alive_s:
            bound = f"POS_BATCH_TIMEOUT_S + {PEER_SILENT_INTERVALS + 1} * POS_PEERS_ALIVE_S + {CLOCK_SKEW_S:g}"
            raise ValueError(f"POS_RESUME_OVERLAP_S must exceed {bound}")
        if self.notice_lag_s >= SETTLEMENT_PAUSE_S:
            raise ValueError(f"POS_BATCH_TIMEOUT_S must be less than {SETTLEMENT_PAUSE_S - CLOCK_SKEW_S:g}")
        if self.resume_payments_max >= self.outbox_messages_max:
            raise ValueError("POS_RESUME_PAYMENTS_MAX must be less than POS_OUTBOX_MESSAGES_MAX")
        if self.archive_min_age_days <= max(self.refund_window_days, self.cancel_window_s / (24 * 3600)):
            raise ValueError("POS_ARCHIVE_MIN_AGE_DAYS must exceed POS_REFUND_WINDOW_DAYS and POS_CANCEL_WINDOW_S")
        if self.api_reports_max >= self.database_pool_max:
            raise ValueError("POS_API_REPORTS_MAX must be less than POS_DATABASE_POOL_MAX")
        if self.api_report_timeout_s >= self.database_connect_timeout_s:
            raise ValueError("POS_API_REPORT_TIMEOUT_S must be less than POS_DATABASE_CONNECT_TIMEOUT_S")
        if self.pin_payment_failures_max > self.pin_failures_max:
            raise ValueError("POS_PIN_PAYMENT_FAILURES_MAX must not exceed POS_PIN_FAILURES_MAX")
        if self.pin_argon2_memory_kib < 8:
            raise ValueError("POS_PIN_ARGON2_MEMORY_KIB must be at least 8 (RFC 9106 section 3.1)")
        return self

    @property
    def notice_lag_s(self) -> float:
        """The longest time between a decision's time and its commit, as another server's clock shows it."""
        return self.batch_timeout_s + CLOCK_SKEW_S

    def rules(self) -> Rules:
        """Return the rules that decisions apply. Raises SettingsError if the risk hook cannot be loaded."""
        return Rules(
            limits=Limits(
                payment_minor_max=self.payment_minor_max,
                day_minor_max=self.day_minor_max,
                top_up_minor_max=self.top_up_minor_max,
                balance_minor_max=self.balance_minor_max,
                pin_free_minor_max=self.pin_free_minor_max,
                pin_free_day_count_max=self.pin_free_day_count_max,
                pin_free_day_minor_max=self.pin_free_day_minor_max,
            ),
            currency_limits=self.currency_limits,
            risk=accept_all if self.risk_hook is None else _load_hook(self.risk_hook),
            code_expired_steps=self.code_expired_steps,
            confirmation_ms=int(self.confirmation_s * 1000),
            pin_payment_failures_max=self.pin_payment_failures_max,
            pin_failures_max=self.pin_failures_max,
            pin_lock_ms=int(self.pin_lock_s * 1000),
            cancel_window_ms=int(self.cancel_window_s * 1000),
            refund_window_ms=int(self.refund_window_days * 24 * 3_600_000),
            refunds_max=self.refunds_max,
        )

    def authorizer_limits(self) -> AuthorizerLimits:
        return AuthorizerLimits(
            queue_operations_max=self.queue_operations_max,
            device_operations_max=self.device_operations_max,
            lanes=self.batch_lanes,
            batch_operations_max=self.batch_operations_max,
            batch_attempts_max=self.batch_attempts_max,
            batch_timeout_s=self.batch_timeout_s,
            operation_deadline_s=self.operation_deadline_s,
            connect_timeout_s=self.database_connect_timeout_s,
        )

    def outbox_limits(self) -> OutboxLimits:
        return OutboxLimits(self.outbox_messages_max, self.outbox_bytes_max)

    def admission_limits(self) -> AdmissionLimits:
        return AdmissionLimits(
            connections_max=self.connections_max,
            address_connections_max=self.address_connections_max,
            origins=self.allowed_origins,
        )

    def device_limits(self) -> DeviceLimits:
        return DeviceLimits(
            heartbeat_s=self.heartbeat_s,
            authentication_timeout_s=self.authentication_timeout_s,
            frame_bytes_max=self.frame_bytes_max,
            resume_overlap_ms=int(self.resume_overlap_s * 1000),
            resume_payments_max=self.resume_payments_max,
            conversation=ConversationLimits(
                messages_per_s=self.messages_per_s,
                messages_burst=self.messages_burst,
                bad_messages_per_s=self.bad_messages_per_s,
                bad_messages_burst=self.bad_messages_burst,
                queries_per_s=self.queries_per_s,
                queries_burst=self.queries_burst,
                requests_max=self.connection_requests_max,
            ),
        )

    def wire_limits(self) -> WireLimits:
        # Floats also for whole numbers, so that equal limits are printed alike.
        return WireLimits(
            frame_bytes_max=self.frame_bytes_max,
            heartbeat_s=self.heartbeat_s,
            heartbeat_timeout_s=float(self.heartbeat_timeout_s),
            authenticate_within_s=self.authentication_timeout_s,
            messages_per_s=float(self.messages_per_s),
            messages_burst=self.messages_burst,
            device_operations_max=self.device_operations_max,
            operation_deadline_s=float(self.operation_deadline_s),
            queries_per_s=float(self.queries_per_s),
            queries_burst=self.queries_burst,
            connection_requests_max=self.connection_requests_max,
            confirmation_s=float(self.confirmation_s),
            pin_payment_failures_max=self.pin_payment_failures_max,
            pin_failures_max=self.pin_failures_max,
            pin_lock_s=float(self.pin_lock_s),
        )

    def drain_limits(self) -> DrainLimits:
        return DrainLimits(timeout_s=self.drain_timeout_s, reconnect_within_s=self.drain_reconnect_within_s)

    def pin_hasher_limits(self) -> PinHasherLimits:
        return PinHasherLimits(
            passes=self.pin_argon2_passes,
            memory_kib=self.pin_argon2_memory_kib,
            threads=self.pin_workers,
            waiting_max=self.pin_checks_max,
        )

    def api_limits(self) -> ApiLimits:
        return ApiLimits(
            body_bytes_max=self.api_body_bytes_max,
            timeout_s=self.api_timeout_s,
            requests_max=self.api_requests_max,
            requests_per_s=self.api_requests_per_s,
            requests_burst=self.api_requests_burst,
            keys_tracked_max=self.api_keys_tracked_max,
        )

    def forged_codes(self) -> FailureLimit:
        """Return a new counter of forged codes per terminal."""
        return FailureLimit(self.bad_codes_max, self.bad_codes_window_s, self.addresses_tracked_max)

    def wrong_api_keys(self) -> FailureLimit:
        """Return a new counter of wrong API keys per address."""
        return FailureLimit(self.api_key_failures_max, self.api_key_failures_window_s, self.addresses_tracked_max)

    def wrong_activation_codes(self) -> FailureLimit:
        """Return a new counter of wrong activation codes per address."""
        return FailureLimit(self.activation_failures_max, self.activation_failures_window_s, self.addresses_tracked_max)


def load_settings(**overrides: object) -> Settings:
    """Read the settings from the environment; `overrides` that are not None take precedence. Raises SettingsError."""
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        problems = []
        for problem in error.errors(include_input=False, include_url=False, include_context=False):
            name = "_".join(str(part) for part in problem["loc"]).upper()
            problems.append(f"POS_{name}: {problem['msg']}" if name else problem["msg"])
        raise SettingsError("; ".join(problems)) from None


def _load_hook(name: str) -> RiskHook:
    module, _, function = name.partition(":")
    try:
        hook = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(f"POS_RISK_HOOK: cannot load {name}: {error}. The format is module:function") from None
    if not callable(hook):
        raise SettingsError(f"POS_RISK_HOOK: {name} is not a function")
    return cast("RiskHook", hook)


def parse_master_keys(text: str) -> Keyring:
    """Parse `kid:base64[,kid:base64…]` into a keyring. Raises SettingsError, which never contains a key."""
    keys: dict[str, bytes] = {}
    for position, part in enumerate(text.split(","), start=1):
        kid, _, encoded = part.strip().partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise SettingsError(f"POS_MASTER_KEYS: key {position} is not kid:base64") from None
        if not kid.replace("-", "").replace("_", "").isalnum() or not kid.isascii() or len(kid) > 32:
            raise SettingsError(f"POS_MASTER_KEYS: the kid of key {position} must be 1 to 32 letters, digits, - or _")
        if len(key) < MASTER_KEY_BYTES_MIN:
            raise SettingsError(f"POS_MASTER_KEYS: key {position} is shorter than {MASTER_KEY_BYTES_MIN} bytes")
        if kid in keys:
            raise SettingsError(f"POS_MASTER_KEYS: the kid of key {position} is used twice")
        keys[kid] = key
    return Keyring(keys, current=next(iter(keys)))


def new_master_key(kid: str) -> str:
    """Return a new random master key in the format of POS_MASTER_KEYS."""
    return f"{kid}:{base64.b64encode(secrets.token_bytes(MASTER_KEY_BYTES_MIN)).decode()}"
