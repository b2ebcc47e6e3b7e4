"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

F = TypeVar("F", bound=Callable[..., Any])

FORMS = ("table", "json", "yaml", "name")
"""Forms of a result."""

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SHARE = re.compile(r"(\d{0,3}\.?\d{1,9})\s*(%?)")
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(ms|s|m|h|d|)")


class Span(click.ParamType[float]):
    """Seconds, or a number with its unit: ``90``, ``90s``, ``5m``, ``1.5h``, ``7d``."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it as seconds."""
        if isinstance(value, int | float):
            return float(value)
        seconds = self.seconds(str(value))
        if seconds is None:
            self.fail(f"{value!r} is not a duration such as 90, 30s, 5m or 2h", param, ctx)
        return seconds

    def seconds(self, text: str) -> float | None:
        """The same without a command; None where it is no duration."""
        found = _SPAN.fullmatch(text.strip().lower())
        return None if found is None else float(found[1]) * _UNITS[found[2]]


SPANS = Span()


class Share(click.ParamType[float]):
    """A share of one: ``0.25`` or ``25%``."""

    name = "share"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it as a number; whether it is a share that is allowed is said elsewhere."""
        if isinstance(value, int | float):
            return float(value)
        found = _SHARE.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is not a share such as 0.25 or 25%", param, ctx)
        return float(found[1]) / (100.0 if found[2] else 1.0)


def output_option(command: F) -> F:
    """``-o``: the form of the result."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(FORMS),
        default="table",
        show_default=True,
        help="Form of the result on stdout.",
    )(command)


def home_option(command: F) -> F:
    """``--home`` and ``--profile``: which platform, and whose credentials.

    The environment counts too, in the order that ``Profile.load`` says.
    """
    for option in (
        click.option(
            "--profile",
            metavar="NAME",
            expose_value=False,
            callback=_choose_profile,
            help="A profile of `argosy login`  [env: ARGOSY_PROFILE].",
        ),
        click.option(
            "--home",
            type=click.Path(file_okay=False, path_type=Path),
            help="Folder with the platform's credentials  [env: ARGOSY_HOME; default: ~/.argosy].",
        ),
    ):
        command = option(command)
    return command


def _choose_profile(ctx: click.Context, param: click.Parameter, value: str | None) -> None:  # noqa: ARG001 - click's signature
    # Not a parameter of each command: it only says how `Argosy.from_profile` connects.
    from orchestrator.client.profile import CHOSEN

    CHOSEN.set(value)


def timeout_option(command: F) -> F:
    """``--timeout``: how long to watch."""
    return click.option(
        "--timeout", type=Span(), help="Give up watching after this long (exit code 124)."
    )(command)


def watch_option(command: F) -> F:
    """``-w``: watch what was queued."""
    return click.option("-w", "--watch", "follow", is_flag=True, help="Watch it until it ends.")(
        command
    )


def changes_options(command: F) -> F:
    """``--set`` and the options that are short for it."""
    for option in (
        click.option("--project", help="Whose share of the cluster it counts to."),
        click.option("--priority", type=click.IntRange(-100, 100), help="Higher ones start first."),
        click.option("--name", help="The job's name."),
        click.option(
            "--set",
            "sets",
            multiple=True,
            metavar="KEY=VALUE",
            help="Change a key, as in stop.max_epochs=20 or config.lr=0.01; repeatable.",
        ),
    ):
        command = option(command)
    return command
