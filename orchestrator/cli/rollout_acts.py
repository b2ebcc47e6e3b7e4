"""What operators do to a rollout: ``argosy rollout pause|resume|abort``."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from orchestrator.cli.options import home_option, output_option

_reason_option = click.option("--reason", default="", help="Why; it stays with the rollout.")


def _do(rollout_id: str, act: str, reason: str, home: Path | None, form: str) -> None:
    from orchestrator.cli import console
    from orchestrator.cli.authored import build
    from orchestrator.cli.output import emit_one
    from orchestrator.cli.rollouts import rollout_shape
    from orchestrator.client import Argosy
    from schemas.rollout import OperateRequest

    said = build(OperateRequest, {"reason": "--reason"}, reason=reason)
    with Argosy.from_profile(home) as argosy:
        acts = {
            "pause": lambda: argosy.rollouts.pause(rollout_id, said.reason),
            "resume": lambda: argosy.rollouts.resume(rollout_id),
            "abort": lambda: argosy.rollouts.abort(rollout_id, said.reason),
        }
        view = acts[act]()
    emit_one(view, form, rollout_shape(), lambda v: console.say(v.id, console.state(v.state)))


@click.command()
@click.argument("rollout_id", metavar="ROLLOUT")
@_reason_option
@home_option
@output_option
def pause(rollout_id: str, reason: str, home: Path | None, form: str) -> None:
    """Offer the version to no further device for now."""
    _do(rollout_id, "pause", reason, home, form)


@click.command()
@click.argument("rollout_id", metavar="ROLLOUT")
@home_option
@output_option
def resume(rollout_id: str, home: Path | None, form: str) -> None:
    """Go on with a paused rollout."""
    _do(rollout_id, "resume", "", home, form)


@click.command()
@click.argument("rollout_id", metavar="ROLLOUT")
@_reason_option
@home_option
@output_option
def abort(rollout_id: str, reason: str, home: Path | None, form: str) -> None:
    """End a rollout here; devices keep what they serve."""
    _do(rollout_id, "abort", reason, home, form)
