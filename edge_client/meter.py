"""Who hears of every inference: what the runtime tells telemetry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from edge_client.inference import Array, Loaded
from schemas.window import Role


class Meter(Protocol):
    """Counts. Called from any thread, on the way of each inference: it must be quick."""

    def served(
        self,
        loaded: Loaded,
        *,
        feed: Mapping[str, Array],
        raw: Sequence[Array],
        n: int,
        seconds: float,
        queue_seconds: float | Sequence[float] = 0.0,
        truth: int | None = None,
        runs: int = 1,
        role: Role = "active",
    ) -> None:
        """A batch of ``n`` samples was answered.

        feed, raw: what went in and came out; whoever called may use their memory again.
        seconds: in the model, in ``runs`` calls of it. queue_seconds: before it, of all or of each
        sample. truth: the class of a single sample, where it is known.
        """

    def failed(self, loaded: Loaded, n: int = 1, *, role: Role = "active") -> None:
        """The model failed on ``n`` samples."""

    def rejected(self, loaded: Loaded, n: int = 1) -> None:
        """Samples that do not fit the model, which did not see them."""

    def shed(self, loaded: Loaded, n: int = 1) -> None:
        """Samples that were turned away unanswered."""

    def cold(self, loaded: Loaded) -> None:
        """A model was loaded, to serve."""

    def compared(self, loaded: Loaded, agreed: int, n: int) -> None:
        """A shadow answered ``n`` samples after the active model, ``agreed`` of them alike."""


class NoMeter:
    """Counts nothing: where telemetry is off."""

    def served(self, loaded: Loaded, **_figures: object) -> None:
        """As ``Meter`` has it."""

    def failed(self, loaded: Loaded, n: int = 1, *, role: Role = "active") -> None:
        """As ``Meter`` has it."""

    def rejected(self, loaded: Loaded, n: int = 1) -> None:
        """As ``Meter`` has it."""

    def shed(self, loaded: Loaded, n: int = 1) -> None:
        """As ``Meter`` has it."""

    def cold(self, loaded: Loaded) -> None:
        """As ``Meter`` has it."""

    def compared(self, loaded: Loaded, agreed: int, n: int) -> None:
        """As ``Meter`` has it."""
