"""What goes down to devices, and whether the broker has it.

Publishing is level-triggered: the caller asks again and again for the same message
until the broker has acknowledged exactly that one.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from schemas.enroll import Renewed, RenewNow
from schemas.rollout import Command
from schemas.topics import Down, down

Publish = Callable[[str, bytes, bool], int | None]
"""(topic, payload, retain) → message id, or None when nothing can be sent now."""

_RETRY_SECONDS = 10.0
_ABANDONED_SECONDS = 60.0
_KEEP = 20_000
"""Messages that are remembered: those on their way, and those that nobody wrote down yet."""


@dataclass(frozen=True, slots=True)
class _Sent:
    payload: bytes
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
        self._sent: OrderedDict[str, _Sent] = OrderedDict()  # the oldest first
        self._keys: dict[int, str] = {}  # of what is on its way, by message id
        self._publishing = 0
        self._early: set[int] = set()
        self._refused = False

    @property
    def refuses(self) -> bool:
        """Whether the last call had something to send, and could not even hand it over."""
        return self._refused

    def desired(self, device: str, document: bytes) -> bool:
        """Retain a device's desired state (empty clears it); True once the broker has it."""
        return self._deliver(
            _desired_key(device), down(device, Down.DESIRED), document, retain=True
        )

    def command(self, device: str, command: Command) -> bool:
        """Send a command; True once the broker has it."""
        key, payload = _command_key(command), _command_payload(command)
        return self._deliver(key, down(device, Down.CMD), payload, retain=False)

    def has(self, device: str, what: bytes | Command) -> bool:
        """Whether the broker has exactly this document, or command; nothing is sent."""
        if isinstance(what, bytes):
            key, payload = _desired_key(device), what
        else:
            key, payload = _command_key(what), _command_payload(what)
        sent = self._sent.get(key)
        return sent is not None and sent.acked and sent.payload == payload

    def renewed(self, device: str, answer: Renewed) -> bool:
        """Send a certificate that was asked for; False when nothing can be sent now.

        Each time anew, also the same one: a device asks again when the answer was lost.
        """
        return self._hand_over(down(device, Down.RENEWED), answer)

    def renew_now(self, device: str, ask: RenewNow) -> bool:
        """Have a device ask for a new certificate; False when nothing can be sent now."""
        return self._hand_over(down(device, Down.RENEW), ask)

    def forget(self, device: str, command: Command | None = None) -> None:
        """What was delivered is written down: the same wish means that it was lost since."""
        key = _desired_key(device)
        if command is not None:
            key = _command_key(command)
        with self._lock:
            if key in self._sent and self._sent[key].acked:
                del self._sent[key]

    def acknowledged(self, mid: int) -> None:
        """The broker has the message of that id."""
        with self._lock:
            key = self._keys.pop(mid, None)
            if key is not None:
                self._sent[key] = replace(self._sent[key], acked=True)
            elif self._publishing:
                # The answer can overtake publish() returning the id.
                self._early.add(mid)

    def disconnected(self) -> None:
        """Forget what is on its way: message ids start again."""
        with self._lock:
            for key in self._keys.values():
                del self._sent[key]
            self._keys.clear()
            self._early.clear()

    def _hand_over(self, topic: str, message: Renewed | RenewNow) -> bool:
        payload = message.model_dump_json(exclude_none=True).encode()
        return self._publish(topic, payload, False) is not None  # noqa: FBT003 - retain

    def _deliver(self, key: str, topic: str, payload: bytes, *, retain: bool) -> bool:
        with self._lock:
            sent = self._sent.get(key)
            self._refused = False
            if sent is not None and sent.payload == payload:
                if sent.acked:
                    return True
                if self._monotonic() - sent.at < _RETRY_SECONDS:
                    return False
            if key not in self._sent and not self._make_room():
                self._refused = True
                return False
            self._publishing += 1
        # Outside the lock: paho answers from its own thread while it holds one of its own.
        mid = self._publish(topic, payload, retain)
        with self._lock:
            self._publishing -= 1
            self._refused = mid is None
            if mid is not None:
                self._note(key, _Sent(payload, mid, self._monotonic(), mid in self._early))
            if not self._publishing:
                self._early.clear()
        return False

    def _note(self, key: str, sent: _Sent) -> None:
        before = self._sent.pop(key, None)
        # Ids come round: by now another message may have that one.
        if before is not None and self._keys.get(before.mid) == key:
            del self._keys[before.mid]
        self._sent[key] = sent
        if not sent.acked:
            self._keys[sent.mid] = key

    def _make_room(self) -> bool:
        """Forget what is the least missed; False when everything is on its way.

        First what was delivered and nobody asked for since, then what was never acknowledged
        and nobody asks for any more: whoever still wants it sends it again.
        """
        if len(self._sent) < _KEEP:
            return True
        now = self._monotonic()
        for key, sent in self._sent.items():
            if sent.acked or now - sent.at > _ABANDONED_SECONDS:
                del self._sent[key]
                if self._keys.get(sent.mid) == key:
                    del self._keys[sent.mid]
                return True
        return False


def _desired_key(device: str) -> str:
    return f"desired/{device}"


def _command_payload(command: Command) -> bytes:
    return command.model_dump_json().encode()


def _command_key(command: Command) -> str:
    return f"{command.kind}/{command.execution}/{command.attempt}"
