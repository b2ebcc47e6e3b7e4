"""Runs a candidate beside the active version, and tells what came of it."""

from __future__ import annotations

from dataclasses import replace

from edge_client.device import Device
from edge_client.loading import load_slot
from edge_client.shadow import Seen
from edge_client.shadowing import Beside
from edge_client.slots import Slot
from edge_client.states import Key, Shadowing

LOOK_SECONDS = 0.5


class ShadowWatch:
    """Of one device. Used from the thread that decides."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._key: Key | None = None
        self._active: Slot | None = None
        self._base = self._began = self._asked = self._looked = 0.0
        self._n = 0

    def look(self, state: Shadowing) -> Beside | None:
        """What the shadow did so far; None where it is too early to look again.

        The first call loads it. A failure to load is the candidate's.

        Raises:
            UpdateError: it cannot be loaded, or not beside the active version.
        """
        now, runtime = self._device.clock.steady(), self._device.runtime
        if self._key != state.offer.key or runtime.shadowing is None:
            self._begin(state)
            return None
        if now - self._looked < LOOK_SECONDS:
            return None
        active = runtime.slot(state.slot.model)
        n = 0 if active is None else runtime.counts(active)[0]
        if active == self._active and n > self._n:
            self._asked += now - self._looked
        self._active, self._n, self._looked = active, n, now
        shadow = runtime.shadowing
        return Beside(
            asked=self._asked,
            elapsed=self._base + max(0.0, now - self._began),
            seen=Seen() if shadow is None else shadow.seen(),
        )

    def leave(self) -> None:
        """The comparison is over."""
        if self._key is not None:
            self._key = None
            self._device.runtime.shadow(None)

    def _begin(self, state: Shadowing) -> None:
        device, rules = self._device, state.offer.assignment.shadow
        with device.runtime.busy.doing("a load", state.slot.sha256):
            # One thread, as the share of a core is measured on that of the shadow alone.
            session = replace(device.runtime.session, threads=1, spinning=False)
            loaded = load_slot(device.store, state.slot, session)
        now = device.clock.steady()
        self._key = state.offer.key
        self._base, self._began, self._looked, self._asked = state.elapsed, now, now, 0.0
        self._active = device.runtime.slot(state.slot.model)
        self._n = 0 if self._active is None else device.runtime.counts(self._active)[0]
        device.runtime.shadow(loaded, 1.0 if rules is None else rules.cpu_share)
