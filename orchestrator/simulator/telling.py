"""When a simulated device tells of what it serves: windows that are cut in time and sent."""

from __future__ import annotations

from typing import Protocol

from orchestrator.simulator.clock import Clock
from orchestrator.simulator.draws import share
from orchestrator.simulator.hub import Hub
from orchestrator.simulator.link import Link
from orchestrator.simulator.outcome import happens
from orchestrator.simulator.profile import Effect
from orchestrator.simulator.telemetry import Recorder, Serving
from orchestrator.simulator.traffic import Level, level
from orchestrator.simulator.traits import Traits, effects
from schemas.device import ActiveModel
from schemas.topics import Up, up

_MAX_QUEUED = 64
"""Messages that wait for the broker; what is cut beyond that is dropped, and counted."""


class Owner(Protocol):
    """The device, as far as its windows need it."""

    id: str
    dead: bool
    clock: Clock


class Telling:
    """The telemetry of one device.

    Args:
        hub: what all devices share.
        device: whose it is.
        traits: what it is like.
        link: its connection.
    """

    def __init__(self, hub: Hub, device: Owner, traits: Traits, link: Link) -> None:
        self._hub, self._device, self._traits, self._link = hub, device, traits, link
        self._recorder = Recorder(traits, hub.seed)
        self._serving: dict[str, Serving] = {}

    @property
    def boot(self) -> str:
        """The id of this start, in hex."""
        return self._recorder.boot.hex()

    def effects(self, model: str, version: int) -> tuple[Effect, ...]:
        """How a version differs on this device."""
        return effects(self._hub.profile, self._traits, model, version, self._hub.seed)

    def level(self, model: ActiveModel) -> Level:
        """What the device does with a version."""
        return level(self._traits.kind.traffic, self.effects(model.model, model.version))

    def begin(self, model: ActiveModel, *, eager: bool) -> None:
        """Serve a model. eager: it was just loaded, so that windows are short for a while."""
        now, of = self._hub.steady(), (model.model, model.version)
        loaded = now if eager else now - self._hub.profile.eager_for_seconds
        silent = happens("silent", self.effects(*of), self._traits, of, self._hub.seed)
        one = Serving(model, self.level(model), now, loaded, silent=silent)
        self._serving[model.model] = one
        # A first window of a random length, so that a fleet does not send all at once.
        first = self._length(one) * share(self._hub.seed, self._device.id, "first")
        self._hub.after(first, self._tick, one)

    def end(self, model: str) -> None:
        """Serve it no more; what it did so far is told."""
        one = self._serving.pop(model, None)
        if one is not None:
            self._send(one)

    def shadow(
        self, model: ActiveModel, of: Level, agreement: float, seconds: float
    ) -> tuple[int, int]:
        """Send what a shadow compared; how many answers, and how many of them agreed."""
        payload, compared, agreed = self._recorder.shadow(
            model, of, agreement, seconds=seconds, wall=self._device.clock.wall()
        )
        self._link.publish(up(self._device.id, Up.TELE), payload)
        return compared, agreed

    def _length(self, one: Serving) -> float:
        profile = self._hub.profile
        eager = self._hub.steady() - one.loaded < profile.eager_for_seconds
        return min(profile.window_seconds, profile.eager_seconds if eager else float("inf"))

    def _tick(self, one: Serving) -> None:
        if self._serving.get(one.model.model) is one and not self._device.dead:
            self._send(one)
            self._hub.after(self._length(one), self._tick, one)

    def _send(self, one: Serving) -> None:
        """End a window and send it; what finds no room is counted as dropped."""
        device = self._device
        now = self._hub.steady()
        payload = self._recorder.cut(one, now, wall=device.clock.wall(), synced=device.clock.synced)
        if payload is None:
            return
        if self._link.pending > _MAX_QUEUED:
            self._recorder.dropped += 1
            return
        self._link.publish(up(device.id, Up.TELE), payload)
        self._hub.figures.windows += 1
