"""``argosy device-class``: kinds of devices, and what a variant may cost on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option, output_option

if TYPE_CHECKING:
    from orchestrator.cli.output import Shape
    from schemas.budget import DeviceClassView

_NAMES = {
    "max_size_mb": "--max-size-mb",
    "max_latency_ms": "--max-latency-ms",
    "max_rss_mb": "--max-rss-mb",
    "note": "--note",
    "name": "NAME",
}


@click.group("device-class")
def device_class() -> None:
    """Say what a variant may cost, by kind of device."""


@device_class.command()
@home_option
@output_option
def ls(home: Path | None, form: str) -> None:
    """List classes."""
    from orchestrator.cli.output import emit_list
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        found = list(argosy.device_classes.list())
    empty = "no device classes: make one with `argosy device-class set NAME --max-size-mb 0.1`"
    emit_list(found, form, _shape(), empty)


@device_class.command()
@click.argument("name", metavar="NAME")
@home_option
@output_option
def get(name: str, home: Path | None, form: str) -> None:
    """Show a class."""
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        view = argosy.device_classes.get(name)
    emit_one(view, form, _shape(), _show)


@device_class.command("set")
@click.argument("name", metavar="NAME")
@click.option("--max-size-mb", type=float, help="Of a variant's file, in MB.")
@click.option("--max-latency-ms", type=float, help="Of single inferences, the median.")
@click.option("--max-rss-mb", type=float, help="Memory to load and run it, in MiB.")
@click.option("--note", default=None, help="For people.")
@home_option
@output_option
def set_(
    *,
    name: str,
    max_size_mb: float | None,
    max_latency_ms: float | None,
    max_rss_mb: float | None,
    note: str | None,
    home: Path | None,
    form: str,
) -> None:
    """Make a class, or set its limits anew: what is not given is not limited.

    The note stays unless another is given.
    """
    from orchestrator.cli import console
    from orchestrator.cli.authored import build
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy
    from orchestrator.errors import NotFound
    from schemas.budget import Budget, DeviceClassSpec, DeviceClassView

    budget = build(
        Budget,
        _NAMES,
        max_size_mb=max_size_mb,
        max_latency_ms=max_latency_ms,
        max_rss_mb=max_rss_mb,
    )
    build(DeviceClassView, _NAMES, name=name, spec=DeviceClassSpec())
    with Argosy.from_profile(home) as argosy:
        if note is None:
            try:
                note = argosy.device_classes.get(name).spec.note
            except NotFound:
                note = ""
        spec = build(DeviceClassSpec, _NAMES, budget=budget, note=note)
        view = argosy.device_classes.set(name, spec)
    emit_one(
        view, form, _shape(), lambda v: console.say(f"{v.name}: {budget_text(v) or 'no limits'}")
    )


@device_class.command()
@click.argument("name", metavar="NAME")
@home_option
def rm(name: str, home: Path | None) -> None:
    """Forget a class that no device is in."""
    from orchestrator.cli import console
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        argosy.device_classes.remove(name)
    console.say(f"{name} is forgotten")


def budget_text(view: DeviceClassView) -> str:
    """The limits in words; nothing where there is none."""
    budget = view.spec.budget
    limits = (
        (budget.max_size_mb, "{:g} MB"),
        (budget.max_latency_ms, "{:g} ms"),
        (budget.max_rss_mb, "{:g} MiB of memory"),
    )
    return ", ".join(form.format(limit) for limit, form in limits if limit is not None)


def _shape() -> Shape[DeviceClassView]:
    from orchestrator.cli import console
    from orchestrator.cli.output import Shape

    def limit(value: float | None, unit: str) -> str:
        return console.NONE if value is None else f"{value:g} {unit}"

    return Shape(
        lambda view: view.name,
        ("NAME", lambda view: view.name),
        ("DEVICES", lambda view: str(view.devices)),
        ("SIZE", lambda view: limit(view.spec.budget.max_size_mb, "MB")),
        ("LATENCY", lambda view: limit(view.spec.budget.max_latency_ms, "ms")),
        ("MEMORY", lambda view: limit(view.spec.budget.max_rss_mb, "MiB")),
        ("NOTE", lambda view: view.spec.note or console.NONE),
    )


def _show(view: DeviceClassView) -> None:
    from orchestrator.cli import console
    from orchestrator.cli.output import print_facts

    changed = f"{view.updated_at.astimezone():%Y-%m-%d %H:%M}" if view.updated_at else None
    print_facts(
        [
            ("class", view.name),
            ("devices", str(view.devices)),
            ("at most", budget_text(view) or console.NONE),
            ("note", view.spec.note),
            ("changed", changed),
        ]
    )
