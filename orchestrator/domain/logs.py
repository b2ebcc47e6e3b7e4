"""How much of a job's log is kept, and what a reader asks of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LEVELS = ("debug", "info", "warning", "error")
"""The levels of log lines, the least first."""

MAX_SEARCH = 200


@dataclass(frozen=True, slots=True)
class LogCap:
    """How much of one job's log is kept: rows, and bytes of their text in UTF-8.

    slack: the share that goes beyond what must, so that lines are dropped by the
    thousand and not one by one.
    """

    lines: int = 100_000
    size: int = 64 * 1024**2
    slack: float = 0.02


@dataclass(frozen=True, slots=True)
class LogTotals:
    """What is stored of one job's log; ``dropped`` lines are not any more.

    lines, size: of the rows, the one that tells of dropped lines included.
    """

    lines: int = 0
    size: int = 0
    dropped: int = 0

    def plus(self, sizes: Iterable[int]) -> LogTotals:
        """The totals with lines of these sizes added."""
        found = tuple(sizes)
        return LogTotals(self.lines + len(found), self.size + sum(found), self.dropped)


@dataclass(frozen=True, slots=True)
class LogCut:
    """Rows up to ``last`` go; that row itself is left to tell of it, with ``text``."""

    last: int
    text: str
    totals: LogTotals


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Which lines of a log.

    after: rows with a greater number. search: text that a line holds; case does not
    matter. level: the least. tail: the last ``limit`` lines instead of the first.
    """

    after: int = 0
    limit: int = 50
    search: str | None = None
    level: str | None = None
    tail: bool = False

    @property
    def levels(self) -> tuple[str, ...] | None:
        """The levels that are wanted; None for all."""
        return None if self.level is None else LEVELS[LEVELS.index(self.level) :]


def is_full(totals: LogTotals, cap: LogCap) -> bool:
    """Whether lines must go."""
    return totals.lines > cap.lines or totals.size > cap.size


def cut(totals: LogTotals, oldest: Iterable[tuple[int, int]], cap: LogCap) -> LogCut | None:
    """What to drop so that the log is below its cap again, by the cap's slack.

    Args:
        totals: what is stored.
        oldest: the number and the size of each row, from the oldest on; read only as far
            as rows go. The newest row always stays.
        cap: the limits.

    Returns:
        the cut, or None when there is nothing that could go.
    """
    lines, size = cap.lines * (1 - cap.slack), cap.size * (1 - cap.slack)
    rows, gone, last = 0, 0, None
    for number, weight in oldest:
        if rows + 1 >= totals.lines:
            break
        rows, gone, last = rows + 1, gone + weight, number
        if rows > 1 and totals.lines - rows + 1 <= lines and totals.size - gone <= size:
            break
    if last is None:
        return None
    dropped = totals.dropped + rows - (1 if totals.dropped else 0)
    text = (
        f"{dropped:,} earlier lines were dropped: "
        f"a job keeps up to {cap.lines:,} lines and {cap.size / 1024**2:,.0f} MiB"
    )
    after = LogTotals(totals.lines - rows + 1, totals.size - gone + len(text), dropped)
    return LogCut(last, text, after)
