"""``argosy rollout devices`` and ``retry``: where each device stands, and another attempt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option, output_option

if TYPE_CHECKING:
    from orchestrator.cli.output import Cell, Shape
    from schemas.rollout_view import ExecutionView

STATES = [
    "SCHEDULED",
    "OFFERED",
    "ACCEPTED",
    "DEFERRED",
    "DOWNLOADING",
    "VERIFIED",
    "STAGED",
    "SHADOWING",
    "ACTIVATING",
    "PROBATION",
    "SUCCEEDED",
    "FAILED",
    "ROLLED_BACK",
    "REJECTED",
    "TIMED_OUT",
    "CANCELLED",
    "SUPERSEDED",
    "REMOVED",
    "ALREADY_INSTALLED",
    "NO_VARIANT",
    "UNKNOWN",
]
"""Those of ``schemas.rollout.ExecState``, which is not loaded to show a help text."""


@click.command()
@click.argument("rollout_id", metavar="ROLLOUT")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATES, case_sensitive=False),
    metavar="STATE",
    help="Only in this state, as in failed, succeeded or scheduled; repeatable.",
)
@click.option("--wave", type=click.IntRange(min=1), help="Only of this wave, counted from 1.")
@home_option
@output_option
def devices(
    *,
    rollout_id: str,
    states: tuple[str, ...],
    wave: int | None,
    home: Path | None,
    form: str,
) -> None:
    """List every device of a rollout: where it stands, and why."""
    from orchestrator.cli.output import emit_list
    from orchestrator.client import Argosy
    from schemas.rollout import ExecState

    wanted = [ExecState(state) for state in states]
    index = None if wave is None else wave - 1
    with Argosy.from_profile(home) as argosy:
        found = list(argosy.rollouts.devices(rollout_id, states=wanted, wave=index))
    empty = "no device of it is there" if states or wave else "the rollout has no devices"
    emit_list(found, form, _shape(), empty)


@click.command()
@click.argument("rollout_id", metavar="ROLLOUT")
@click.argument("device_ids", metavar="[DEVICE]...", nargs=-1)
@home_option
@output_option
def retry(*, rollout_id: str, device_ids: tuple[str, ...], home: Path | None, form: str) -> None:
    """Try again where a rollout came to nothing: on these DEVICEs, or on all.

    For devices that failed, timed out, rejected it or put the model before back, that no variant
    fitted or that were never seen. A rollout that was paused for its failures can be resumed then.
    """
    from orchestrator.cli import console
    from orchestrator.cli.authored import build
    from orchestrator.cli.output import emit_one
    from orchestrator.cli.rollout_acts import say_notes
    from orchestrator.cli.rollout_shape import acts_on, rollout_shape
    from orchestrator.client import Argosy
    from schemas.rollout import RolloutState
    from schemas.rollout_view import RetryRequest

    asked = build(RetryRequest, {"devices": "DEVICE"}, devices=device_ids)
    with Argosy.from_profile(home) as argosy, acts_on(rollout_id):
        retried = argosy.rollouts.retry(rollout_id, asked.devices)
    view = retried.rollout
    many = "1 device is" if retried.devices == 1 else f"{retried.devices} devices are"
    emit_one(view, form, rollout_shape(), lambda v: click.echo(v.id))
    say_notes(view, form)
    if form == "table":
        console.say(f"{many} tried again", style="dim")
        if view.state is RolloutState.PAUSED:
            console.say(f"it is paused: `argosy rollout resume {view.id}`", style="dim")


def _shape() -> Shape[ExecutionView]:
    from orchestrator.cli import console
    from orchestrator.cli.output import Shape

    return Shape(
        lambda view: view.device,
        ("DEVICE", lambda view: view.device),
        ("WAVE", lambda view: str(view.wave + 1)),
        ("STATE", lambda view: console.state(view.state)),
        ("ATTEMPT", lambda view: str(view.attempt)),
        ("VARIANT", lambda view: view.variant or console.NONE),
        ("BYTES", _bytes),
        ("AGE", lambda view: console.age(view.updated_at)),
        ("WHY", _why),
    )


def _bytes(view: ExecutionView) -> Cell:
    from orchestrator.cli import console
    from schemas.rollout import ExecState

    if view.state is ExecState.DOWNLOADING and view.bytes_total:
        return f"{console.size(view.bytes_done or 0)} of {console.size(view.bytes_total)}"
    return console.size(view.bytes_fetched)


_ENDED = {
    "CANCELLED": "the rollout was ended before it was done",
    "SUPERSEDED": "another rollout took its place",
    "REMOVED": "it was taken out of the rollout",
    "TIMED_OUT": "it did not get on in time",
    "FAILED": "it gave no reason",
    "REJECTED": "it gave no reason",
    "ROLLED_BACK": "it gave no reason",
}
"""Where nobody said more."""


def _why(view: ExecutionView) -> Cell:
    from orchestrator.cli import console

    parts = [part for part in (view.cause, view.detail) if part]
    if view.waits_for is not None:
        parts.append(f"waits for {view.waits_for}")
    if view.kept is not None:
        parts.append(f"to be {view.kept}")
    if view.late is not None:
        parts.append(f"later {view.late}")
    return ": ".join(parts) or _ENDED.get(view.state.value, console.NONE)
