"""``argosy ca``: the certificate authority."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option, output_option

if TYPE_CHECKING:
    from orchestrator.cli.output import Shape
    from schemas.authority import AuthorityView, GateView, RootView

_SHORT = 16


@click.group()
def ca() -> None:
    """See and replace the certificate authority."""


@ca.command()
@home_option
@output_option
def status(home: Path | None, form: str) -> None:
    """Show the roots, who knows which, and whether revoked devices are kept out."""
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        view = argosy.authority.get()
    emit_one(view, form, _shape(), _show)


@ca.command()
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@home_option
@output_option
def rotate(*, yes: bool, home: Path | None, form: str) -> None:
    """Make a new root. Devices are asked to renew; both roots count until `retire`."""
    from orchestrator.cli import console
    from orchestrator.cli.asking import confirm
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        confirm("Make a new root, and have every device renew its certificate?", yes=yes)
        view = argosy.authority.rotate()
    emit_one(view, form, _shape(), _show)
    console.say("`argosy ca status` shows who has followed; then: argosy ca retire", style="dim")


@ca.command()
@click.option("--force", is_flag=True, help="Although devices that have not followed are lost.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@home_option
@output_option
def retire(*, force: bool, yes: bool, home: Path | None, form: str) -> None:
    """Trust the old root no more: refused while devices are left that know no other."""
    from orchestrator.cli.asking import confirm
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        lost = argosy.authority.get().behind if force else 0
        devices = "1 device" if lost == 1 else f"{lost} devices"
        loss = f" {devices} will be lost until enrolled again." if lost else ""
        confirm(f"Trust the old root no more?{loss} It cannot be undone.", yes=yes)
        view = argosy.authority.retire(force=force)
    emit_one(view, form, _shape(), _show)


def _shape() -> Shape[AuthorityView]:
    from orchestrator.cli.output import Shape

    return Shape(lambda view: next(r.sha256 for r in reversed(view.roots)))


def _show(view: AuthorityView) -> None:
    from orchestrator.cli import console
    from orchestrator.cli.output import print_facts, print_table

    print_table(
        ["ROOT", "NAME", "STATE", "KEY", "ENDS", "ISSUING ENDS", "KNOWN BY", "ISSUED"],
        [
            [
                root.sha256[:_SHORT],
                root.name,
                _state(view, root),
                _key(root),
                f"{root.expires_at:%Y-%m-%d}",
                f"{root.issuing_expires_at:%Y-%m-%d}",
                f"{root.known_by} of {view.devices}",
                str(root.issued),
            ]
            for root in view.roots
        ],
    )
    behind = None
    if view.rotating:
        some = ", ".join(view.behind_ids)
        behind = f"{view.behind} of {view.devices}" + (f": {some}" if some else "")
    unheard = f"{view.unheard} devices never said which roots they know" if view.unheard else None
    print_facts([("behind", behind), ("unheard", unheard), ("broker", _gate(view.gate))])
    for problem in view.problems:
        console.say(problem, style="yellow")


def _state(view: AuthorityView, root: RootView) -> str:
    if root.external:
        return "external"
    if root == next(r for r in reversed(view.roots) if not r.external):
        return "active" if root.active else "server only"
    return "until retired"


def _key(root: RootView) -> str:
    if root.external:
        return "elsewhere"
    return "on the server" if root.key_held else "moved away"


def _gate(gate: GateView) -> str:
    whose = "our own" if gate.broker == "embedded" else "run elsewhere"
    revoked = f"{gate.revoked} certificates revoked"
    if gate.trouble is not None:
        return f"{whose}; {revoked}; {gate.trouble}"
    when = f" at {gate.proven_at.astimezone():%Y-%m-%d %H:%M:%S}" if gate.proven_at else ""
    return f"{whose}; {revoked}; a revoked canary was refused{when}"
