"""``argosy fleet``: selectors that were saved under a name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option, output_option

if TYPE_CHECKING:
    from orchestrator.cli.output import Shape
    from schemas.fleet import FleetView

_NAMES = {"selector": "SELECTOR", "note": "--note", "name": "NAME"}


@click.group()
def fleet() -> None:
    """Save which devices are meant, under a name."""


@fleet.command()
@home_option
@output_option
def ls(home: Path | None, form: str) -> None:
    """List fleets."""
    from orchestrator.cli.output import emit_list
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        found = list(argosy.fleets.list())
    empty = "no fleets: make one with `argosy fleet create NAME 'class = cam and tag = lab'`"
    emit_list(found, form, _shape(), empty)


@fleet.command()
@click.argument("name", metavar="NAME")
@home_option
@output_option
def get(name: str, home: Path | None, form: str) -> None:
    """Show a fleet, and count who is in it by class and presence."""
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        view = argosy.fleets.get(name)
    emit_one(view, form, _shape(), _show)


@fleet.command()
@click.argument("name", metavar="NAME")
@click.argument("selector", metavar="SELECTOR")
@click.option("--note", default="", help="For people.")
@click.option("--replace", is_flag=True, help="Also if a fleet has that name.")
@home_option
@output_option
def create(
    *, name: str, selector: str, note: str, replace: bool, home: Path | None, form: str
) -> None:
    """Save a selector, as in `argosy fleet create lab 'class = cam and tag = lab'`.

    Rollouts that are planned already, dynamic ones too, go by what it was then.
    """
    from orchestrator.cli.authored import build
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy
    from orchestrator.errors import Conflict, NotFound
    from schemas.fleet import FleetSpec

    spec = build(FleetSpec, _NAMES, selector=selector, note=note)
    with Argosy.from_profile(home) as argosy:
        if not replace:
            try:
                there = argosy.fleets.get(name)
            except NotFound:
                pass
            else:
                msg = f"fleet {name} is there: {there.spec.selector}"
                raise Conflict(msg, hint="say --replace to change it, or take another name")
        view = argosy.fleets.set(name, spec)
    emit_one(view, form, _shape(), _show)


@fleet.command()
@click.argument("name", metavar="NAME")
@home_option
def delete(name: str, home: Path | None) -> None:
    """Forget a fleet that no rollout needs any more."""
    from orchestrator.cli import console
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        argosy.fleets.remove(name)
    console.say(f"{name} is forgotten")


def _shape() -> Shape[FleetView]:
    from orchestrator.cli import console
    from orchestrator.cli.output import Shape

    return Shape(
        lambda view: view.name,
        ("NAME", lambda view: view.name),
        ("CHANGED", lambda view: console.age(view.updated_at)),
        ("SELECTOR", lambda view: view.spec.selector),
        ("NOTE", lambda view: view.spec.note or console.NONE),
    )


def _show(view: FleetView) -> None:
    from orchestrator.cli import console
    from orchestrator.cli.output import Cell, print_facts, print_table

    print_facts(
        [
            ("fleet", view.name),
            ("selector", view.spec.selector),
            ("note", view.spec.note),
            ("devices", str(view.devices)),
            ("rollouts", ", ".join(view.rollouts)),
            ("changed", f"{view.updated_at.astimezone():%Y-%m-%d %H:%M}"),
        ]
    )
    if view.members:
        rows: list[list[Cell]] = [
            [share.device_class, console.state(share.presence), str(share.devices)]
            for share in view.members
        ]
        console.out().print()
        print_table(["CLASS", "PRESENCE", "DEVICES"], rows)
