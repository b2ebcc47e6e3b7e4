"""Reads what came on ``up/tele``: an envelope, or a window as older devices send it."""

from __future__ import annotations

from pydantic import ValidationError

from schemas import telemetry, window
from schemas.window import About, Envelope, Window, WindowError, pack


def read(device: str, payload: bytes) -> Envelope:
    """The envelope of a device.

    Raises:
        WindowError: it is malformed, or a window that says it is another device's.
    """
    if payload[:1] != b"{":
        return window.decode(payload)
    try:
        old = telemetry.Window.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors()[0]
        msg = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise WindowError(msg) from error
    if old.device != device:
        msg = "it is another device's"
        raise WindowError(msg)
    return converted(old)


def converted(old: telemetry.Window) -> Envelope:
    """A window of the old form as an envelope."""
    about = About(
        boot=bytes.fromhex(old.boot),
        model=old.model,
        version=old.version,
        variant=old.variant,
        role=old.role,
        provider=old.provider or "CPUExecutionProvider",
    )
    new = Window(
        about=0,
        seq=old.seq,
        start_ms=max(0, round(old.start.timestamp() * 1000)),
        synced=False,
        length_ms=round(old.seconds * 1000),
        n=old.n,
        errors=old.errors,
        latency=pack(old.latency_us),
        confidence=list(old.confidence),
        classes=pack(old.classes),
        cpu_ms=round((old.cpu_seconds or 0) * 1000),
        rss_mib=round((old.rss_mb or 0) * 1e6 / 2**20),
        labelled=old.labelled,
        correct=old.correct,
        dropped=old.dropped,
    )
    return Envelope(format=1, about=[about], windows=[new])
