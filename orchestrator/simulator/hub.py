"""What all simulated devices of a run share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.simulator.fetch import Library
from orchestrator.simulator.figures import Figures
from orchestrator.simulator.link import Broker
from orchestrator.simulator.profile import Profile
from orchestrator.simulator.wheel import SLOT_SECONDS, Wheel


@dataclass(slots=True, kw_only=True)
class Hub:
    """The loop, its timers, and what is common. roots: SHA-256 of the authorities' DER forms.

    over: the run ends, so nobody connects any more. connecting: connections being made.
    """

    loop: asyncio.AbstractEventLoop
    broker: Broker
    profile: Profile
    seed: int
    roots: tuple[str, ...]
    library: Library = field(default_factory=Library)
    figures: Figures = field(default_factory=Figures)
    wheel: Wheel = field(default_factory=lambda: Wheel(time.monotonic()))
    over: bool = False
    connecting: int = 0

    def steady(self) -> float:
        """Seconds, never going back."""
        return time.monotonic()

    def after(self, seconds: float, act: Callable[..., None], *args: object) -> None:
        """Have something done later."""
        self.wheel.after(seconds, self.steady(), act, *args)

    def turn(self) -> None:
        """Do what is due, and come again; a fault of one device must not stop the others."""
        for act, args in self.wheel.due(self.steady()):
            try:
                act(*args)
            except Exception as error:  # noqa: BLE001 - whatever it is, the fleet goes on
                self.loop.call_exception_handler(
                    {"message": "a device's timer failed", "exception": error}
                )
        if not self.over:
            self.loop.call_later(SLOT_SECONDS, self.turn)
