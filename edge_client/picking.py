"""Which samples are looked at: a random part of them, so that looking stays cheap."""

from __future__ import annotations

import math
import random

SAMPLES_PER_SECOND = 16.0
"""Of a model's inputs, at most about so many are put into the bins of its baseline."""

VALUES_PER_SECOND = 2_000_000.0
"""And so many numbers in them: 10 ns each are 2 % of a core."""

MAX_ROWS = 256
MAX_BYTES = 1024 * 1024
"""Of one batch: what is drawn is copied, and waits in memory."""


class Picker:
    """Draws each sample with the present chance, independently. Not thread-safe.

    skip: how many samples are passed over before the next one that is drawn.
    """

    def __init__(self, rng: random.Random) -> None:
        """All are drawn, until ``adapt`` knows how many there are."""
        self._rng = rng
        self.chance = 1.0
        self.skip = 0

    def rows(self, n: int, size: int = 0) -> tuple[list[int], float]:
        """Which of the next n samples are drawn, ascending, and the chance that each had.

        Of very many, or large ones, it is a random part. size: bytes of one sample.
        """
        drawn = []
        while self.skip < n:
            drawn.append(self.skip)
            self.skip += 1 + self._gap()
        self.skip -= n
        most = max(1, min(MAX_ROWS, MAX_BYTES // max(1, size)))
        if len(drawn) <= most:
            return drawn, self.chance
        return sorted(self._rng.sample(drawn, most)), self.chance * most / len(drawn)

    def adapt(self, seen: int, seconds: float, values: float) -> None:
        """Follow the load.

        Args:
            seen: samples in the last ``seconds``.
            seconds: of a steady clock.
            values: numbers in one sample.
        """
        if seen == 0:
            return
        wanted = min(SAMPLES_PER_SECOND, VALUES_PER_SECOND / max(1.0, values)) * seconds
        self.chance = min(1.0, max(1e-9, wanted / seen))
        self.skip = self._gap()  # drawn anew: what was left of the old gap has no memory

    def _gap(self) -> int:
        if self.chance >= 1.0:
            return 0
        # Geometric, by inversion: how many failures come before the first success.
        return int(math.log(1.0 - self._rng.random()) / math.log1p(-self.chance))
