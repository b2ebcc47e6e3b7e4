"""The windows of one simulated device: cut, put into envelopes and sent."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from orchestrator.simulator.draws import generator
from orchestrator.simulator.traffic import Drawn, Level, window
from orchestrator.simulator.traits import Traits
from schemas.device import ActiveModel
from schemas.window import About, Envelope, Window, encode, pack


@dataclass(slots=True)
class Serving:
    """A model that serves. since: when the window under way began, in steady seconds."""

    model: ActiveModel
    level: Level
    since: float
    loaded: float
    silent: bool = False


class Recorder:
    """Counts as a device's agent does, by drawing.

    Args:
        traits: of the device.
        seed: of the fleet.

    The boot is new with each start, as the numbers of the windows begin again; what is in a
    window follows from the seed all the same.
    """

    def __init__(self, traits: Traits, seed: int) -> None:
        self._traits, self._seed = traits, seed
        self.boot = secrets.token_bytes(16)
        self._seq = 0
        self._drawn: dict[tuple[str, int], int] = {}
        self.dropped = 0
        self.samples = 0

    def cut(self, one: Serving, now: float, *, wall: float, synced: bool) -> bytes | None:
        """End a window and begin the next; its envelope, or None where nothing is to be told.

        Args:
            one: what serves.
            now: steady seconds.
            wall: seconds since 1970, as the device believes.
            synced: whether that is the server's time.
        """
        seconds, one.since = now - one.since, now
        if one.silent or seconds <= 0:
            return None
        key = (one.model.model, one.model.version)
        number = self._drawn[key] = self._drawn.get(key, -1) + 1
        drawn = window(
            one.level,
            self._traits,
            seconds=seconds,
            at=wall,
            seed=self._seed,
            key=(*key, number),
        )
        self.samples += drawn.n
        length = max(1, round(seconds * 1000))
        cold = 1 if number == 0 else 0
        return self._envelope(one.model, drawn, round(wall * 1000) - length, length, synced, cold)

    def shadow(
        self, model: ActiveModel, level: Level, agreement: float, *, seconds: float, wall: float
    ) -> tuple[bytes, int, int]:
        """The window of a shadow, how many answers it compared, and how many agreed."""
        rng = generator(self._seed, self._traits.number, model.version, 1 << 31)
        compared = int(rng.poisson(level.rate * seconds))
        agreed = int(rng.binomial(compared, agreement))
        about = self._about(model, role="shadow")
        length = max(1, round(seconds * 1000))
        counted = Window(
            about=0,
            seq=self._next(),
            start_ms=max(0, round(wall * 1000) - length),
            synced=True,
            length_ms=length,
            n=compared,
            runs=compared,
            compared=compared,
            agreed=agreed,
        )
        return encode(Envelope(format=1, about=[about], windows=[counted])), compared, agreed

    def _envelope(
        self,
        model: ActiveModel,
        drawn: Drawn,
        start_ms: int,
        length_ms: int,
        synced: bool,  # noqa: FBT001 - as the window has it
        cold: int,
    ) -> bytes:
        counted = Window(
            about=0,
            seq=self._next(),
            start_ms=max(0, start_ms),
            synced=synced,
            length_ms=length_ms,
            n=drawn.n,
            errors=drawn.errors,
            runs=drawn.n,
            latency=pack(drawn.latency),
            confidence=list(drawn.confidence),
            classes=pack(drawn.classes),
            cpu_ms=min(length_ms, drawn.n),
            rss_mib=drawn.rss_mib,
            energy_mj=drawn.energy_mj,
            method="cpu_time" if drawn.energy_mj else "",
            cold=cold,
            labelled=drawn.labelled,
            correct=drawn.correct,
            dropped=self.dropped,
        )
        self.dropped = 0
        return encode(Envelope(format=1, about=[self._about(model)], windows=[counted]))

    def _about(self, model: ActiveModel, role: str = "active") -> About:
        return About(
            boot=self.boot,
            model=model.model,
            version=model.version,
            variant=model.variant,
            role="shadow" if role == "shadow" else "active",
        )

    def _next(self) -> int:
        self._seq += 1
        return self._seq - 1
