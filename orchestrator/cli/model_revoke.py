"""``argosy model revoke``: a version that must go to no device any more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option, output_option

if TYPE_CHECKING:
    from orchestrator.client import Argosy
    from schemas.model import ModelVersionView


@click.command()
@click.argument("ref", metavar="MODEL@VERSION")
@click.option("--reason", required=True, help="Why; it stays with the version.")
@click.option(
    "--rollback", is_flag=True, help="Give devices that serve it what they served before."
)
@click.option("--to", metavar="VERSION", help="Of a rollback: this version for all, as in 3.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@home_option
@output_option
def revoke(
    *,
    ref: str,
    reason: str,
    rollback: bool,
    to: str | None,
    yes: bool,
    home: Path | None,
    form: str,
) -> None:
    """Take a version back, for good: no device is offered it, no alias stays on it.

    Devices that serve it go on until they are given another; with --rollback that is at once,
    by whatever rollout they got it, and also when they come back later.
    """
    from orchestrator.cli import console
    from orchestrator.cli.asking import confirm
    from orchestrator.cli.authored import build
    from orchestrator.cli.model_show import version_shape
    from orchestrator.cli.output import emit_one
    from orchestrator.cli.refs import load, split, version_of
    from orchestrator.client import Argosy
    from schemas.model import RevokeRequest

    with Argosy.from_profile(home) as argosy:
        goal = None if to is None else version_of(argosy, split(ref)[0], to, "--to")
        asked = build(
            RevokeRequest,
            {"reason": "--reason", "": "--to"},
            reason=reason,
            rollback=rollback,
            to=goal,
        )
        view = load(argosy, ref)
        if not view.revoked:
            weight = _weight(argosy, view, rollback=rollback)
            confirm(f"Revoke {view.model}@{view.version}? {weight}", yes=yes)
        view = argosy.models.revoke(
            view.model, view.version, asked.reason, rollback=asked.rollback, to=asked.to
        )
    emit_one(view, form, version_shape(), _say)
    if form == "table" and asked.rollback:
        console.say("whoever serves it is led back: `argosy rollout ls` shows how", style="dim")


def _weight(argosy: Argosy, view: ModelVersionView, *, rollback: bool) -> str:
    """What depends on the version, in a sentence or two."""
    serving = list(argosy.devices.list(model=view.model, version=view.version))
    parts = [f"Aliases that go: {', '.join(view.aliases)}."] if view.aliases else []
    if serving:
        who = "1 device serves" if len(serving) == 1 else f"{len(serving)} devices serve"
        then = "is led back" if len(serving) == 1 else "are led back"
        parts.append(f"{who} it now, and {then if rollback else 'will until given another'}.")
    return " ".join([*parts, "It cannot be undone."])


def _say(view: ModelVersionView) -> None:
    from orchestrator.cli import console

    why = f": {console.clean(view.revoked_reason)}" if view.revoked_reason else ""
    console.say(f"{view.model}@{view.version} is revoked{why}")
