"""Whether it is time to go on with the present state; looked at as often as its work is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from edge_client.device import Device
from edge_client.events import Dated, Event, Held, Released
from edge_client.states import Accepted, Deferred, Downloading, Key, Shadowing, Staged, hold_of
from edge_client.waiting import Hold, Why, before_download, before_swap, needs_beginning

LOOK_SECONDS = 1.0
"""Between two looks whether a download that is under way may go on."""

PATIENCE_SECONDS = 5.0
"""So long the server's time may take to come, before it is told that it is waited for."""

MayWait: TypeAlias = Accepted | Deferred | Downloading | Staged | Shadowing


class Waits:
    """Of one device. Used from the thread that decides."""

    def __init__(self, device: Device, *, apply: Callable[[Event], None]) -> None:
        """Put together. apply: takes events, at once."""
        self._device, self._apply = device, apply
        self._look_at = 0.0
        self._timeless: tuple[Key, float] | None = None  # since when nobody says the time

    def hold(self, state: MayWait) -> Hold | None:
        """Why a state must wait now."""
        now, assignment = self._device.server_time(), state.offer.assignment
        if now is not None and needs_beginning(assignment) and not state.timing.accepted_at:
            self._apply(Dated(key=state.offer.key, at=now))
        if isinstance(state, Staged | Shadowing):
            return before_swap(assignment, state.timing, now)
        begun = isinstance(state, Downloading)
        return before_download(assignment, state.timing, now, begun=begun)

    def keeps(self, state: MayWait) -> bool:
        """Whether a state waits, which is journalled; its work must not go on then."""
        if isinstance(state, Downloading) and not self._due():
            return False
        hold, key = self.hold(state), state.offer.key
        if hold is None:
            self._timeless = None
            if isinstance(state, Deferred):
                self._apply(Released(key=key))
                return True
            return False
        if hold != hold_of(state) and not (hold.why is Why.NO_TIME and self._patient(key)):
            self._apply(Held(key=key, hold=hold))
        return True

    def _due(self) -> bool:
        now = self._device.clock.steady()
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_SECONDS
        return True

    def _patient(self, key: Key) -> bool:
        """Whether the server's time may still come: it is asked for as soon as one is connected."""
        now = self._device.clock.steady()
        if self._timeless is None or self._timeless[0] != key:
            self._timeless = (key, now)
        return now - self._timeless[1] < PATIENCE_SECONDS
