"""``argosy device``: the fleet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.device_tag import tag
from orchestrator.cli.options import home_option, output_option

if TYPE_CHECKING:
    from orchestrator.client import Argosy
    from schemas.device import DeviceView

_STATES = ["PENDING", "ACTIVE", "SUSPENDED", "REVOKED"]


@click.group()
def device() -> None:
    """See the fleet, and say who may take part."""


device.add_command(tag)


@device.command()
@click.option(
    "--where", metavar="SELECTOR", help="Only what it matches, as in 'tag = lab and seen < 2h'."
)
@click.option("--class", "device_class", metavar="CLASS", help="Only this class.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only with this tag; repeatable.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(_STATES, case_sensitive=False),
    help="Only in this state; repeatable.",
)
@click.option("--model", metavar="NAME[@VERSION]", help="Only what serves this model.")
@home_option
@output_option
def ls(
    *,
    where: str | None,
    device_class: str | None,
    tags: tuple[str, ...],
    states: tuple[str, ...],
    model: str | None,
    home: Path | None,
    form: str,
) -> None:
    """List devices."""
    from orchestrator.cli.device_show import device_shape, waiting_shape
    from orchestrator.cli.output import emit_list
    from orchestrator.cli.refs import resolve
    from orchestrator.cli.selecting import narrowed
    from orchestrator.client import Argosy
    from schemas.device import DeviceState

    wanted = [DeviceState(state) for state in states]
    selector = narrowed(where, device_class, tags)
    with Argosy.from_profile(home) as argosy:
        name, version = model, None
        if model is not None and "@" in model:
            name, version = resolve(argosy, model)
        found = list(argosy.devices.list(wanted, model=name, version=version, where=selector))
    waiting = wanted == [DeviceState.PENDING]
    empty = "no devices: `argosy token create` says how one joins"
    if waiting:
        empty = "no device waits for approval"
    elif model is not None:
        empty = f"no device serves {model}"
    elif selector is not None:
        empty = f"no device matches: {selector}"
    emit_list(found, form, waiting_shape() if waiting else device_shape(), empty)


@device.command()
@click.argument("device_id", metavar="DEVICE")
@click.option("--why", is_flag=True, help="Say why it serves what it serves, and nothing newer.")
@home_option
@output_option
def get(*, device_id: str, why: bool, home: Path | None, form: str) -> None:
    """Show one device."""
    from orchestrator.cli.device_show import device_shape, show_device
    from orchestrator.cli.device_why import show_why, why_shape
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        if why:
            emit_one(argosy.devices.why(device_id), form, why_shape(), show_why)
            return
        view = argosy.devices.get(device_id)
    emit_one(view, form, device_shape(), show_device)


_all_option = click.option("--all", "every", is_flag=True, help="All that wait for approval.")
_yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


@device.command()
@click.argument("device_ids", metavar="[DEVICE]...", nargs=-1)
@_all_option
@_yes_option
@home_option
@output_option
def approve(
    *, device_ids: tuple[str, ...], every: bool, yes: bool, home: Path | None, form: str
) -> None:
    """Let devices in that wait for approval.

    Compare the fingerprint first: `argosy device ls --state PENDING` shows it, and so does the
    device.
    """
    _decide("Approve", device_ids, lambda argosy: argosy.devices.approve, every, yes, home, form)


@device.command()
@click.argument("device_ids", metavar="[DEVICE]...", nargs=-1)
@_all_option
@_yes_option
@home_option
@output_option
def reject(
    *, device_ids: tuple[str, ...], every: bool, yes: bool, home: Path | None, form: str
) -> None:
    """Turn devices away that wait for approval."""
    _decide("Reject", device_ids, lambda argosy: argosy.devices.reject, every, yes, home, form)


@device.command()
@click.argument("device_id", metavar="DEVICE")
@click.option("--reason", default="", help="Why; it stays with the device.")
@_yes_option
@home_option
@output_option
def revoke(*, device_id: str, reason: str, yes: bool, home: Path | None, form: str) -> None:
    """Shut a device out: its certificates count no more, and its connection ends.

    It goes on serving the model that it has. A device that comes with a token made for it
    (`argosy token create --device`) takes its place again.
    """
    from orchestrator.cli.asking import confirm
    from orchestrator.cli.authored import build
    from orchestrator.cli.device_show import device_shape
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy
    from schemas.device import DeviceState
    from schemas.enroll import RevokeDevice

    asked = build(RevokeDevice, {"reason": "--reason"}, reason=reason)
    with Argosy.from_profile(home) as argosy:
        view = argosy.devices.get(device_id)
        if view.state is not DeviceState.REVOKED:
            where = f"class {view.device_class}, {view.presence}"
            confirm(f"Revoke {view.id} ({where})? It can come back with a new key only.", yes=yes)
        view = argosy.devices.revoke(view.id, asked.reason)
    emit_one(view, form, device_shape(), _say_state)


@device.command("clear-alert")
@click.argument("device_id", metavar="DEVICE")
@home_option
@output_option
def clear_alert(device_id: str, home: Path | None, form: str) -> None:
    """Say that a suspected clone was looked into; the next sign of one is an alert again."""
    from orchestrator.cli.device_show import device_shape
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        view = argosy.devices.clear_alert(device_id)
    emit_one(view, form, device_shape(), _say_state)


Decision = Callable[["Argosy"], Callable[[str], "DeviceView"]]


def _decide(
    word: str,
    ids: tuple[str, ...],
    decision: Decision,
    every: bool,  # noqa: FBT001 - as the option is
    yes: bool,  # noqa: FBT001 - likewise
    home: Path | None,
    form: str,
) -> None:
    """Apply a decision to devices, one by one; what was done before a fault is shown."""
    from orchestrator.cli.asking import confirm
    from orchestrator.cli.device_show import device_shape
    from orchestrator.cli.output import emit_list
    from orchestrator.client import Argosy
    from orchestrator.errors import Invalid
    from schemas.device import DeviceState

    if bool(ids) == every:
        msg = "name the devices, or say --all"
        raise Invalid(msg, hint="`argosy device ls --state PENDING` lists those that wait")
    done: list[DeviceView] = []
    with Argosy.from_profile(home) as argosy:
        if every:
            waiting = list(argosy.devices.list([DeviceState.PENDING]))
            ids = tuple(view.id for view in waiting)
            if ids:
                count = "the 1 device that waits" if len(ids) == 1 else f"all {len(ids)} devices"
                confirm(f"{word} {count}, without comparing fingerprints?", yes=yes)
        try:
            for one in ids:
                done.append(decision(argosy)(one))  # noqa: PERF401 - kept when a later one fails
        finally:
            if done or every:
                emit_list(done, form, device_shape(), "no device waits for approval")


def _say_state(view: DeviceView) -> None:
    from orchestrator.cli import console

    reason = console.clean(view.revoke_reason)
    console.say(f"{view.id} is {view.state}" + (f": {reason}" if reason else ""))
