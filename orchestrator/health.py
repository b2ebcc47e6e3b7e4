"""What the platform of a home says of itself: ``GET /v1/health``, asked on this machine."""

from __future__ import annotations

import http
import http.client
import json
import ssl
from typing import Any

from orchestrator.home import Home
from orchestrator.settings import LOOPBACK, Settings

_MAX_BYTES = 64 * 1024


def ask(settings: Settings, home: Home, seconds: float) -> dict[str, Any] | None:
    """The answer of the server's process; None where there is none that can be read.

    Args:
        settings: where it listens, and whether by TLS.
        home: its folder.
        seconds: that are waited at most for each step.
    """
    host = LOOPBACK if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104 - compared with
    connection: http.client.HTTPConnection
    try:
        if settings.tls:
            context = ssl.create_default_context(cafile=home.ca_pem)
            if settings.tls_cert is not None:
                # It is for another name; nothing is sent to our own child, or believed of it.
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = http.client.HTTPSConnection(
                host, settings.port, timeout=seconds, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, settings.port, timeout=seconds)
        connection.request("GET", "/v1/health")
        answer = connection.getresponse()
        body = json.loads(answer.read(_MAX_BYTES))
        connection.close()
    except (OSError, http.client.HTTPException, ValueError):
        return None
    return body if answer.status == http.HTTPStatus.OK and isinstance(body, dict) else None


def troubles(health: dict[str, Any]) -> list[str]:
    """The parts that are not well, as in ``control loop: failing: …``."""
    parts = health.get("parts")
    told = parts.items() if isinstance(parts, dict) else ()
    return [f"{name}: {state}" for name, state in told if state != "ok"]
