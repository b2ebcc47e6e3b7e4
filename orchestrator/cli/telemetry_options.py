"""Options that the commands of ``argosy telemetry`` share, and marks for distributions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import rich_click as click

from orchestrator.cli.options import Span

F = TypeVar("F", bound=Callable[..., Any])

_BARS = "▁▂▃▄▅▆▇█"
_OPTIONS = {"since", "until", "role", "variant", "device", "device_class", "tag"}


class Moment(click.ParamType[datetime]):
    """A point in time: ``2026-06-01T12:00Z``, or how long ago: ``90m``, ``7d``."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Read it, with a time zone."""
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            at = datetime.now(UTC) - timedelta(seconds=self._ago(text, param, ctx))
        return at.astimezone() if at.tzinfo is None else at

    def _ago(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return Span().convert(text, None, None)
        except click.UsageError:
            self.fail(f"{text!r} is no time such as 90m, 7d or 2026-06-01T12:00", param, ctx)


def device_id(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """A device's id as it was given, or an error that says where to find it."""
    from pydantic import TypeAdapter, ValidationError

    from schemas.ids import DeviceId

    if value is None:
        return None
    try:
        return TypeAdapter(DeviceId).validate_python(value)
    except ValidationError as error:
        msg = f"{value!r} is no device's id: `argosy device ls` lists them"
        raise click.BadParameter(msg) from error


def narrow_options(command: F) -> F:
    """Which part of the telemetry is looked at."""
    for option in (
        click.option("--tag", help="Only devices that have this tag now."),
        click.option("--class", "device_class", help="Only devices of this class."),
        click.option("--device", metavar="ID", callback=device_id, help="Only this device."),
        click.option("--variant", help="Only this variant."),
        click.option(
            "--role",
            type=click.Choice(["active", "shadow"]),
            default="active",
            show_default=True,
            help="What answered, or what ran beside it as a candidate.",
        ),
        click.option("--until", type=Moment(), help="Only before then, as in 1h or 2026-06-01."),
        click.option("--since", type=Moment(), help="Only from then on, as in 7d or 2026-06-01."),
    ):
        command = option(command)
    return command


def narrowed(options: dict[str, Any]) -> dict[str, Any]:
    """Of a command's options those by which telemetry is narrowed, as the SDK takes them."""
    return {name: options[name] for name in _OPTIONS if options.get(name) is not None}


def marks(values: Sequence[float | None]) -> str:
    """Values as a line of bars, on a terminal alone; what is missing is a gap."""
    known = [value for value in values if value is not None]
    most = max(known, default=0)
    if not sys.stdout.isatty() or most <= 0:
        return ""
    steps = len(_BARS) - 1
    return "".join(" " if v is None else _BARS[round(steps * max(v, 0) / most)] for v in values)


def is_narrow(narrow: dict[str, Any]) -> bool:
    """Whether less than all of a version's telemetry was asked for; a shadow's is only a part."""
    return bool(narrow.keys() - {"role"}) or narrow.get("role") == "shadow"


def nothing(name: str, version: int, *, narrowed_down: bool) -> str:
    """What is said in place of a table without rows."""
    if narrowed_down:
        return (
            f"nothing of {name}@{version} matches: leave out some options,"
            f" or see `argosy telemetry summary {name}@{version}`"
        )
    return (
        f"no device has told anything of {name}@{version} yet: devices that serve it do so once a"
        f" minute; `argosy device ls` shows who is there, `argosy rollout start {name}@{version}`"
        " ships it"
    )
