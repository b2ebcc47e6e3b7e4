"""``argosy device``: the fleet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option, output_option

if TYPE_CHECKING:
    from orchestrator.cli.output import Shape
    from schemas.device import DeviceView


@click.group()
def device() -> None:
    """See the fleet."""


@device.command()
@click.option("--class", "device_class", help="Only this class.")
@click.option("--tag", "tags", multiple=True, help="Only with this tag; may be repeated.")
@home_option
@output_option
def ls(device_class: str | None, tags: tuple[str, ...], home: Path | None, form: str) -> None:
    """List devices."""
    from orchestrator.cli.output import emit_list
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        found = [
            view
            for view in argosy.devices.list()
            if device_class in {None, view.device_class} and set(tags) <= set(view.tags)
        ]
    emit_list(found, form, _shape(), "no devices: `argosy token create` says how one joins")


@device.command()
@click.argument("device_id", metavar="DEVICE")
@home_option
@output_option
def get(device_id: str, home: Path | None, form: str) -> None:
    """Show one device."""
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        view = argosy.devices.get(device_id)
    emit_one(view, form, _shape(), _show)


def _active(view: DeviceView) -> str:
    from orchestrator.cli import console

    active = view.active
    return console.NONE if active is None else f"{active.model}@{active.version} {active.variant}"


def _certificate(view: DeviceView) -> str | None:
    until = view.certificate_expires_at
    return f"until {until.astimezone():%Y-%m-%d %H:%M}" if until else None


def _shape() -> Shape[DeviceView]:
    from orchestrator.cli import console
    from orchestrator.cli.output import Shape

    return Shape(
        lambda view: view.id,
        ("ID", lambda view: view.id),
        ("CLASS", lambda view: view.device_class),
        ("TAGS", lambda view: ",".join(view.tags) or console.NONE),
        ("STATE", lambda view: console.state(view.state)),
        ("PRESENCE", lambda view: console.state(view.presence)),
        ("SERVES", _active),
        ("SEEN", lambda view: console.age(view.last_seen_at)),
    )


def _show(view: DeviceView) -> None:
    from orchestrator.cli import console
    from orchestrator.cli.output import print_facts

    hardware = view.hardware
    print_facts(
        [
            ("device", view.id),
            ("state", console.state(view.state)),
            ("presence", console.state(view.presence)),
            ("seen", f"{console.age(view.last_seen_at)} ago" if view.last_seen_at else "never"),
            ("class", view.device_class),
            ("tags", ", ".join(view.tags)),
            ("serves", _active(view)),
            ("rollout", view.rollout),
            ("hardware", f"{hardware.arch}, {hardware.cpus} CPUs, {hardware.ram_mb} MB"
             if hardware else None),
            ("runtime", f"ONNX Runtime {hardware.ort}: {', '.join(hardware.providers)}"
             if hardware else None),
            ("enrolled", f"{view.enrolled_at.astimezone():%Y-%m-%d %H:%M}"),
            ("certificate", _certificate(view)),
        ]
    )  # fmt: skip
