"""Which inferences are so short that handing them to another thread would cost more."""

from __future__ import annotations

MAX_FILES = 64
_SHARE = 0.2
_OUTLIER = 3.0
_TRY_AGAIN = 64
_WORTH_A_TRY = 5.0


class Pace:
    """Follows the seconds per value of the inputs, of each model file.

    By values, not samples: where a sample may have any size, one can be a thousand others. A model
    is run where its request was read while a run takes less than ``limit``. An unknown one, and one
    that became slow, is first run elsewhere; when its whole answer came within a few times the
    limit, it is tried again. Used from one thread.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._seconds: dict[str, float] = {}
        self._elsewhere: dict[str, int] = {}

    def short(self, sha256: str, n: int) -> bool:
        """Whether a run of n values is expected to be short."""
        seconds = self._seconds.get(sha256)
        return seconds is not None and seconds * n <= self._limit

    def ran(self, sha256: str, n: int, seconds: float) -> None:
        """A run of n values took so long. One slow run alone, by chance, changes little."""
        n = max(1, n)
        each, before = seconds / n, self._seconds.get(sha256)
        if before is not None:
            each = before + _SHARE * (min(each, _OUTLIER * self._limit / n) - before)
        self._seconds[sha256] = each
        if each * n <= self._limit:
            self._elsewhere.pop(sha256, None)

    def answered(self, sha256: str, n: int, seconds: float) -> None:
        """A request of n values was answered elsewhere, in so many seconds with all waiting."""
        count = self._elsewhere.get(sha256, 0) + 1
        due = count == 1 or count % _TRY_AGAIN == 0
        if due and seconds <= _WORTH_A_TRY * self._limit:
            self._seconds[sha256] = self._limit / max(1, n)
        while len(self._elsewhere) >= MAX_FILES:
            forgotten = next(iter(self._elsewhere))
            del self._elsewhere[forgotten]
            self._seconds.pop(forgotten, None)
        self._elsewhere[sha256] = count
