"""``argosy rollout``: shipping a version, in waves."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from orchestrator.cli.options import home_option, output_option, timeout_option
from orchestrator.cli.rollout_acts import ACTS
from orchestrator.cli.rollout_devices import devices, retry
from orchestrator.cli.rollout_edit import edit
from orchestrator.cli.rollout_plan import plan
from orchestrator.cli.rollout_shape import follow, rollout_shape
from orchestrator.cli.rollout_start import start

__all__ = ["rollout", "rollout_shape"]


@click.group()
def rollout() -> None:
    """Ship a model to the fleet, in waves.

    First `argosy rollout plan digits@3 --waves 1,100%`, which changes nothing, then `argosy rollout
    start` with what it printed. docs/rollouts.md has a worked example.
    """


@rollout.command()
@home_option
@output_option
def ls(home: Path | None, form: str) -> None:
    """List rollouts."""
    from orchestrator.cli import console
    from orchestrator.cli.output import emit_list
    from orchestrator.client import Argosy
    from schemas.rollout import RolloutState

    with Argosy.from_profile(home) as argosy:
        found = list(argosy.rollouts.list())
    emit_list(
        found, form, rollout_shape(), "no rollouts: start one with `argosy rollout start MODEL`"
    )
    drafts = sum(one.state is RolloutState.DRAFT for one in found)
    if form == "table" and drafts:
        what = "start or abort them; after 7 days they are discarded"
        console.say(f"drafts that nobody started: {drafts}; {what}", style="dim")


@rollout.command()
@click.argument("rollout_id", metavar="ROLLOUT")
@click.option("--why", is_flag=True, help="All figures that its verdicts rest on.")
@home_option
@output_option
def get(rollout_id: str, *, why: bool, home: Path | None, form: str) -> None:
    """Show a rollout: its waves, devices and evidence."""
    from orchestrator.cli.output import emit_one
    from orchestrator.cli.rollout_evidence import print_why
    from orchestrator.cli.rollout_plan_text import print_plan
    from orchestrator.cli.rollout_watch import print_rollout
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        view = argosy.rollouts.get(rollout_id)
    ahead = print_rollout if view.estimate is None else print_plan
    emit_one(view, form, rollout_shape(), print_why if why else ahead)


@rollout.command()
@click.argument("rollout_id", metavar="ROLLOUT")
@timeout_option
@home_option
@output_option
def watch(rollout_id: str, timeout: float | None, home: Path | None, form: str) -> int:
    """Watch a rollout until it settles; exit code 7 if a gate stops it."""
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        return follow(argosy, rollout_id, timeout, form)


for _act in (plan, start, edit, *ACTS):
    rollout.add_command(_act)
rollout.add_command(devices)
rollout.add_command(retry)
