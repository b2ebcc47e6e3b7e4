"""Lengths of time on the command line: ``90``, ``90s``, ``10m``, ``2h``, ``7d``."""

from __future__ import annotations

import re
from typing import Any

import rich_click as click

_FORM = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([smhd]?)")
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MOST_SECONDS = 90 * 86400.0


class Span(click.ParamType[float]):
    """A length of time, as seconds."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read one."""
        found = _FORM.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is not a length of time such as 90s, 10m or 2h", param, ctx)
        seconds = float(found[1]) * _UNITS[found[2]]
        if seconds > MOST_SECONDS:
            self.fail("it is more than 90 days", param, ctx)
        return seconds
