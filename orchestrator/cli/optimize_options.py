"""Options that say what is tried of a model and what a variant may cost, as overrides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import rich_click as click

from orchestrator.cli.overrides import Override
from orchestrator.errors import Invalid

F = TypeVar("F", bound=Callable[..., Any])

_LIMITS = ("max_size_mb", "max_latency_ms", "max_rss_mb")
_OPTIONS = (
    click.option("--budget", metavar="LIMITS", help="Of every variant: max_size_mb=0.1,…"),
    click.option(
        "--class",
        "classes",
        multiple=True,
        metavar="NAME:LIMITS",
        help="Of the devices of a class: cam:max_latency_ms=5; repeatable.",
    ),
    click.option("--max-accuracy-drop", type=float, metavar="SHARE", help="0.01 is one point."),
    click.option("--confidence", type=float, help="How sure the drop must be below that."),
    click.option("--prune", metavar="SHARES", help="Of channels, one trial each: 0.5,0.75."),
    click.option("--finetune-epochs", type=int, help="After pruning."),
    click.option("--distill", type=float, help="Weight of the unpruned net's answers in it."),
    click.option("--qat-epochs", type=int, help="With quantization in the loop, if need be."),
    click.option("--int8/--no-int8", default=None, help="Whether INT8 variants are made."),
    click.option("--fp16/--no-fp16", default=None, help="Whether an FP16 variant is made."),
    click.option("--max-trials", type=int, help="The search ends with so many."),
    click.option("--calibration-samples", type=int, help="That set the quantization ranges."),
    click.option("--formats", metavar="A,B", help="For other runtimes: torch-export, litert."),
)


def optimize_options(command: F) -> F:
    """The keys of a job file's ``optimize`` that have options of their own."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def overrides_of(options: Mapping[str, Any]) -> list[Override]:
    """What the options of ``optimize_options`` change; what was not given changes nothing.

    Raises:
        Invalid: a budget, or a list, does not have the form it must have.
    """
    rest = dict(options)
    found: list[Override] = []
    budget, classes = rest.pop("budget"), rest.pop("classes")
    if budget is not None:
        found.append(Override(("optimize", "budget"), parse_budget("--budget", budget), "--budget"))
    for text in classes:
        name, colon, limits = text.partition(":")
        option = f"--class {text}"
        if not name or not colon:
            detail = f"--class: {text!r} is not of the form NAME:LIMITS"
            raise Invalid(detail, hint="as in --class cam:max_size_mb=0.1,max_latency_ms=5")
        limit = parse_budget("--class", limits)
        found.append(Override(("optimize", "classes", name), limit, option))
    if (prune := rest.pop("prune")) is not None:
        shares = [_number("--prune", part) for part in _parts(prune)]
        found.append(Override(("optimize", "prune"), shares, "--prune"))
    if (formats := rest.pop("formats")) is not None:
        found.append(Override(("optimize", "formats"), _parts(formats), "--formats"))
    for key, value in rest.items():
        if value is not None:
            found.append(Override(("optimize", key), value, f"--{key.replace('_', '-')}"))
    return found


def parse_budget(option: str, text: str) -> dict[str, float]:
    """Read ``max_size_mb=0.1,max_latency_ms=5``.

    Raises:
        Invalid: it does not have this form, or names no limit.
    """
    found: dict[str, float] = {}
    for part in _parts(text):
        key, equals, number = part.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or key not in _LIMITS or key in found:
            twice = "is given twice" if key in found else "is no limit"
            detail = f"{option}: {part!r} {twice}"
            raise Invalid(detail, hint=f"limits: {', '.join(f'{one}=…' for one in _LIMITS)}")
        found[key] = _number(f"{option} {key}", number)
    return found


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        detail = f"{option}: {text.strip()!r} is not a number"
        raise Invalid(detail) from None
