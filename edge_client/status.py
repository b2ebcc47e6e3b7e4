"""What a device can say about itself, from its files alone."""

from __future__ import annotations

import datetime as dt

from cryptography import x509
from pydantic import ValidationError

from edge_client.identity import load_identity
from edge_client.lock import is_locked
from edge_client.refusal import Refusal
from edge_client.settings import Home
from edge_client.slots import Slot, read_pointer
from schemas.base import UtcTime, Wire
from schemas.device import ActiveModel
from schemas.enroll import BrokerAddress
from schemas.ids import BootId, DeviceId, ExecutionId, Name
from schemas.rollout import ExecState


class Live(Wire):
    """``agent.json``: what the running agent knows, at most a second or two old."""

    boot: BootId
    connected: bool
    uptime: float
    execution: ExecutionId | None = None
    state: ExecState | None = None
    windows_waiting: int = 0
    refused: Refusal | None = None
    next_renewal: UtcTime | None = None
    renewal_problem: str | None = None
    last_error: str | None = None


class Status(Wire):
    """The answer of ``argosy-edge status``."""

    device: DeviceId
    device_class: Name
    server: str
    broker: BrokerAddress
    certificate_expires_at: UtcTime
    running: bool
    active: ActiveModel | None = None
    fallback: ActiveModel | None = None
    live: Live | None = None


def read_status(home: Home) -> Status:
    """Read a home.

    Raises:
        NotEnrolledError: it holds no identity.
    """
    identity = load_identity(home)
    record = identity.record
    certificate = x509.load_pem_x509_certificate(identity.certificate.read_bytes())
    pointer = read_pointer(home.pointer)
    running = is_locked(home)
    return Status(
        device=record.device,
        device_class=record.device_class,
        server=record.server,
        broker=record.broker,
        certificate_expires_at=certificate.not_valid_after_utc,
        running=running,
        active=_model(pointer.active),
        fallback=_model(pointer.fallback),
        live=_live(home) if running else None,
    )


def lines(status: Status, now: dt.datetime) -> list[tuple[str, str]]:
    """The status in words: (what, value)."""
    left = status.certificate_expires_at - now
    expiry = f"{status.certificate_expires_at:%Y-%m-%d %H:%M} UTC"
    expiry += f" ({left.days} days left)" if left > dt.timedelta() else " (expired: enroll again)"
    live = status.live
    state = "not running" if live is None else "running, not connected"
    if live is not None and live.connected:
        state = "running, connected"
    rows = [
        ("device", status.device),
        ("class", status.device_class),
        ("agent", state if not status.running or live else "starting"),
        ("broker", f"{status.broker.host}:{status.broker.port}"),
        ("certificate", expiry),
        ("active", _words(status.active)),
        ("fallback", _words(status.fallback)),
    ]
    if live is not None:
        doing = "-" if live.execution is None else f"{live.execution} {live.state}"
        rows += [
            ("execution", doing),
            ("windows waiting", str(live.windows_waiting)),
            ("last error", live.last_error or "-"),
        ]
    return rows


def _model(slot: Slot | None) -> ActiveModel | None:
    return None if slot is None else slot.as_active()


def _words(model: ActiveModel | None) -> str:
    if model is None:
        return "-"
    return f"{model.model} v{model.version} {model.variant} ({model.sha256[:12]})"


def _live(home: Home) -> Live | None:
    try:
        return Live.model_validate_json(home.live.read_bytes())
    except (OSError, ValidationError):
        return None
