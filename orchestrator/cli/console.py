"""The two streams, and how values look on them.

Results go to stdout, everything else to stderr. Colours and live displays appear on a
terminal only.
"""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from functools import cache

from rich.console import Console
from rich.text import Text

_STYLES = {
    "green": "SUCCEEDED PASSED ONLINE ACTIVE ALREADY_INSTALLED ok done",
    "red": "failed FAILED ROLLED_BACK REJECTED TIMED_OUT ABORTED REVOKED NO_VARIANT",
    "yellow": "stopped PAUSED INCONCLUSIVE ROLLING_BACK SUSPENDED CANCELLED UNKNOWN DEFERRED"
    " SUPERSEDED",
    "cyan": "running RUNNING EXPORTING OPTIMIZING REGISTERING DOWNLOADING VERIFIED STAGED SHADOWING"
    " ACTIVATING PROBATION SOAKING JUDGING ACCEPTED OFFERED",
    "dim": "waiting PENDING QUEUED SCHEDULED OFFLINE NEVER DRAFT AWAITING_APPROVAL REMOVED"
    " SPENT EXPIRED",
}
_STYLE_OF = {word: style for style, words in _STYLES.items() for word in words.split()}

# Escape sequences first, then whatever else could move the cursor or ring the bell.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)
_PLAIN_WIDTH = 10_000

NONE = "-"
"""Stands where there is no value."""


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PLAIN_WIDTH
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


@cache
def out() -> Console:
    """Where results go."""
    return _console(stderr=False)


@cache
def err() -> Console:
    """Where progress and errors go."""
    return _console(stderr=True)


def is_live() -> bool:
    """Whether progress may redraw itself."""
    return sys.stderr.isatty() and not err().is_dumb_terminal


def say(*parts: str | Text, style: str | None = None) -> None:
    """One line of progress."""
    texts = (p if isinstance(p, Text) else Text(p, style or "") for p in parts)
    line = Text(" ").join(text for text in texts if text.plain)
    err().print(line, soft_wrap=True)


def stamped(*parts: str | Text) -> None:
    """One line of progress, with the local time before it."""
    say(Text(datetime.now().astimezone().strftime("%H:%M:%S"), "dim"), *parts)


def clean(text: str) -> str:
    """Text from elsewhere without anything that a terminal would obey."""
    return _CONTROL.sub("", text)


def state(word: str) -> Text:
    """A state in its colour."""
    return Text(word, _STYLE_OF.get(word, ""))


def percent(share: float | None) -> str:
    """A share of one, as in ``97.4 %``."""
    return NONE if share is None else f"{100 * share:.1f} %"


def size(count: int | None) -> str:
    """A count of bytes, as in ``1.4 MB``."""
    if count is None:
        return NONE
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:  # noqa: PLR2004 - SI
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def ms(value: float | None) -> str:
    """Milliseconds to three digits, as in ``0.184 ms``."""
    if value is None:
        return NONE
    digits = 3 if value < 1 else 2 if value < 10 else 1  # noqa: PLR2004 - three digits
    return f"{value:.{digits}f} ms"


def duration(seconds: float) -> str:
    """A span, as in ``4.2 s``, ``3m 12s``, ``2h 05m``, ``3d 4h``."""
    if seconds < 10:  # noqa: PLR2004 - a decimal matters below
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - a minute
        return f"{whole} s"
    if whole < 3600:  # noqa: PLR2004 - an hour
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:  # noqa: PLR2004 - a day
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def local_time(at: datetime, now: datetime | None = None) -> str:
    """A point in time where the reader is, as in ``today 03:44``."""
    here, today = at.astimezone(), (now or datetime.now(UTC)).astimezone().date()
    near = {-1: "yesterday", 0: "today", 1: "tomorrow"}
    day = near.get((here.date() - today).days, f"{here:%Y-%m-%d}")
    return f"{day} {here:%H:%M}"


def age(at: datetime | None, now: datetime | None = None) -> str:
    """How long ago."""
    if at is None:
        return NONE
    return duration(((now or datetime.now(UTC)) - at).total_seconds())
