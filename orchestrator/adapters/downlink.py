"""What goes down to devices, and whether the broker has it.

Publishing is level-triggered: the caller asks again and again for the same message
until the broker has acknowledged exactly that one.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from schemas.enroll import Renewed, RenewNow
from schemas.rollout import Command
from schemas.topics import Down, down

Publish = Callable[[str, bytes, bool], int | None]
"""(topic, payload, retain) → message id, or None when nothing can be sent now."""

_RETRY_SECONDS = 10.0
_KEEP = 20_000


@dataclass(frozen=True, slots=True)
class _Sent:
    digest: bytes
    mid: int
    at: float
    acked: bool = False


class BrokerDownlink:
    """``services.ports.Downlink`` over a broker.

    Args:
        publish: sends with QoS 1.
        monotonic: seconds, to send again what was never acknowledged.
    """

    def __init__(self, publish: Publish, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._publish = publish
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._sent: dict[str, _Sent] = {}
        self._publishing = 0
        self._early: set[int] = set()

    def desired(self, device: str, document: bytes) -> bool:
        """Retain a device's desired state (empty clears it); True once the broker has it."""
        return self._deliver(
            _desired_key(device), down(device, Down.DESIRED), document, retain=True
        )

    def command(self, device: str, command: Command) -> bool:
        """Send a command; True once the broker has it."""
        key = _command_key(command.execution)
        payload = command.model_dump_json().encode()
        return self._deliver(key, down(device, Down.CMD), payload, retain=False)

    def renewed(self, device: str, answer: Renewed) -> bool:
        """Send a certificate that was asked for; False when nothing can be sent now.

        Each time anew, also the same one: a device asks again when the answer was lost.
        """
        return self._hand_over(down(device, Down.RENEWED), answer)

    def renew_now(self, device: str, ask: RenewNow) -> bool:
        """Have a device ask for a new certificate; False when nothing can be sent now."""
        return self._hand_over(down(device, Down.RENEW), ask)

    def forget(self, device: str, execution: str) -> None:
        """What was delivered is written down: the same wish means that it was lost since."""
        with self._lock:
            for key in (_desired_key(device), _command_key(execution)):
                if key in self._sent and self._sent[key].acked:
                    del self._sent[key]

    def acknowledged(self, mid: int) -> None:
        """The broker has the message of that id."""
        with self._lock:
            for key, sent in self._sent.items():
                if sent.mid == mid and not sent.acked:
                    self._sent[key] = _Sent(sent.digest, mid, sent.at, acked=True)
                    return
            if self._publishing:
                # The answer can overtake publish() returning the id.
                self._early.add(mid)

    def disconnected(self) -> None:
        """Forget what is on its way: message ids start again."""
        with self._lock:
            self._sent = {key: sent for key, sent in self._sent.items() if sent.acked}
            self._early.clear()

    def _hand_over(self, topic: str, message: Renewed | RenewNow) -> bool:
        payload = message.model_dump_json(exclude_none=True).encode()
        return self._publish(topic, payload, False) is not None  # noqa: FBT003 - retain

    def _deliver(self, key: str, topic: str, payload: bytes, *, retain: bool) -> bool:
        digest = hashlib.sha256(payload).digest()
        with self._lock:
            sent = self._sent.get(key)
            if sent is not None and sent.digest == digest:
                if sent.acked:
                    return True
                if self._monotonic() - sent.at < _RETRY_SECONDS:
                    return False
            self._publishing += 1
        # Outside the lock: paho answers from its own thread while it holds one of its own.
        mid = self._publish(topic, payload, retain)
        with self._lock:
            self._publishing -= 1
            if mid is not None:
                if len(self._sent) >= _KEEP:
                    self._sent.clear()
                self._sent[key] = _Sent(digest, mid, self._monotonic(), mid in self._early)
            if not self._publishing:
                self._early.clear()
        return False


def _desired_key(device: str) -> str:
    return f"desired/{device}"


def _command_key(execution: str) -> str:
    return f"cancel/{execution}"
