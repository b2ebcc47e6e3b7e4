"""Vectors of maintenance windows: whether any is open at a time, and until when that holds."""

from __future__ import annotations

from typing import Any

Case = tuple[str, list[dict[str, Any]], str, bool, str | None]


def window(cron: str, minutes: int, timezone: str = "UTC") -> dict[str, Any]:
    """One window."""
    return {"cron": cron, "minutes": minutes, "timezone": timezone, "covers": "activation"}


NIGHT = window("0 2 * * *", 60)
BERLIN = window("30 2 * * *", 60, "Europe/Berlin")
NEW_YORK = window("30 1 * * *", 60, "America/New_York")
WALL = window("*/30 2 * * *", 10, "Europe/Berlin")

CASES: list[Case] = [
    ("no window: it is always open", [], "2026-06-01T12:00:00Z", True, None),
    ("before", [NIGHT], "2026-06-01T01:59:59Z", False, "2026-06-01T02:00:00Z"),
    ("at its first second", [NIGHT], "2026-06-01T02:00:00Z", True, "2026-06-01T03:00:00Z"),
    ("in its last second", [NIGHT], "2026-06-01T02:59:59Z", True, "2026-06-01T03:00:00Z"),
    ("at its end", [NIGHT], "2026-06-01T03:00:00Z", False, "2026-06-02T02:00:00Z"),
    (
        "it began the day before",
        [window("30 23 * * *", 90)],
        "2026-06-02T00:59:00Z",
        True,
        "2026-06-02T01:00:00Z",
    ),
    (
        "it began a week ago",
        [window("0 0 * * 1", 7 * 24 * 60)],
        "2026-06-07T23:59:59Z",
        True,
        "2026-06-08T00:00:00Z",
    ),
    (
        "two that overlap: the later end counts",
        [NIGHT, window("59 2 * * *", 60)],
        "2026-06-01T02:59:30Z",
        True,
        "2026-06-01T03:59:00Z",
    ),
    (
        "two that are closed: the next opening counts",
        [NIGHT, window("59 23 * * *", 1)],
        "2026-06-01T12:00:00Z",
        False,
        "2026-06-01T23:59:00Z",
    ),
    (
        "day of month and weekday: one of them is enough",
        [window("0 2 13 * 5", 60)],
        "2026-06-05T03:00:00Z",
        False,
        "2026-06-12T02:00:00Z",
    ),
    (
        "weekdays by name, 7 is Sunday as 0 is",
        [window("0 2 * * SAT,7", 60)],
        "2026-06-05T12:00:00Z",
        False,
        "2026-06-06T02:00:00Z",
    ),
    (
        "the 29th of February",
        [window("0 0 29 2 *", 60)],
        "2026-06-01T00:00:00Z",
        False,
        "2028-02-29T00:00:00Z",
    ),
    (
        "a fixed time that a gap leaves out is at its end",
        [BERLIN],
        "2026-03-29T00:59:59Z",
        False,
        "2026-03-29T01:00:00Z",
    ),
    (
        "and lasts as long as always",
        [BERLIN],
        "2026-03-29T01:59:59Z",
        True,
        "2026-03-29T02:00:00Z",
    ),
    (
        "a fixed time that comes twice is the first",
        [BERLIN],
        "2026-10-25T00:00:00Z",
        False,
        "2026-10-25T00:30:00Z",
    ),
    (
        "and not the second",
        [BERLIN],
        "2026-10-25T01:30:00Z",
        False,
        "2026-10-26T01:30:00Z",
    ),
    (
        "in another zone likewise",
        [NEW_YORK],
        "2026-11-01T06:30:00Z",
        False,
        "2026-11-02T06:30:00Z",
    ),
    (
        "with a star it follows the clock on the wall: never in a gap",
        [WALL],
        "2026-03-29T00:40:00Z",
        False,
        "2026-03-30T00:00:00Z",
    ),
    (
        "and twice where it is set back",
        [WALL],
        "2026-10-25T00:40:00Z",
        False,
        "2026-10-25T01:00:00Z",
    ),
]


def vectors() -> dict[str, dict[str, Any]]:
    """Each file's content by its name."""
    cases = [
        {"name": name, "windows": windows, "at": at, "open": is_open, "until": until}
        for name, windows, at, is_open, until in CASES
    ]
    return {"windows.json": {"cases": cases}}
