"""``argosy trust``: what devices trust, and who signs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option, output_option
from orchestrator.cli.trust_keys import init, rotate
from orchestrator.cli.trust_known import root_option
from orchestrator.cli.trust_renew import renew
from orchestrator.cli.trust_roots import sign_root, upload
from orchestrator.clock import utc_now

if TYPE_CHECKING:
    from orchestrator.services.ports import Standing
    from schemas.trust import TrustView


@click.group()
def trust() -> None:
    """See and sign what devices trust.

    A new platform holds all keys in HOME/trust/keys and signs by itself. Whoever takes that
    machine can then ship a model. `argosy trust init --offline FOLDER` moves the keys of root,
    targets and releases out of its reach; docs/trust.md tells the whole procedure.
    """


@trust.command()
@home_option
@output_option
def status(home: Path | None, form: str) -> int:
    """Show roles, keys, expiries, and what is unsigned.

    Exit code 1 when something needs to be done.

    For example:

        argosy trust status

        argosy trust status -o json
    """
    from orchestrator.cli.output import Shape, emit_one
    from orchestrator.cli.trust_place import place_of
    from schemas.errors import Exit

    with place_of(home) as place:
        view = place.view()
    shape: Shape[TrustView] = Shape(lambda found: found.root_sha256)
    emit_one(view, form, shape, _show)
    return Exit.FAILED if view.problems else Exit.OK


@trust.command()
@click.argument("refs", nargs=-1, metavar="[MODEL@VERSION]...")
@click.option(
    "--keys",
    "folder",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder with the release key.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@root_option
@home_option
def sign(
    *, refs: tuple[str, ...], folder: Path, yes: bool, root: str | None, home: Path | None
) -> None:
    """Sign the versions that wait, here, with the release key, and publish them.

    The key stays on this machine. Versions that were revoked are taken out as well. The first
    time it asks whether the platform's root is the right one; --root says it beforehand.

    For example:

        argosy trust sign --keys /media/release

        argosy trust sign digits@7 --keys /media/release
    """
    from orchestrator.adapters.trust.documents import role_of
    from orchestrator.adapters.trust.keys import SHORT, load_keys
    from orchestrator.adapters.trust.planning import model_files
    from orchestrator.cli import console
    from orchestrator.cli.asking import confirm
    from orchestrator.cli.trust_place import (
        published_by,
        require_packages,
        upload_to,
    )
    from orchestrator.client import Argosy
    from orchestrator.errors import Invalid
    from schemas.trust import MODELS_ROLE

    require_packages()
    ring = load_keys(folder)
    with Argosy.from_profile(home) as argosy:
        view = argosy.trust.get()
        state = published_by(argosy, root)
        release = role_of(state.targets, MODELS_ROLE)
        if not ring.can_sign(release):
            ids = ", ".join(keyid[:SHORT] for keyid in release.keyids)
            msg = f"{folder} does not hold the release key, which is {ids}"
            raise Invalid(msg, hint="it is the file models-….pem that `argosy trust init` wrote")
        fresh = _wanted(view, refs)
        stale = _standings(view.stale)
        if not fresh and not stale:
            console.say("nothing is unsigned", style="dim")
            return
        for stand in fresh:
            console.say(f"sign   {stand.model}@{stand.version}  {stand.manifest_sha256}")
        for stand in stale:
            console.say(f"remove {stand.model}@{stand.version}  {stand.manifest_sha256}")
        confirm("Publish this to the fleet?", yes=yes)
        stands = (state.listed() - frozenset(stale)) | frozenset(fresh)
        view = upload_to(argosy, model_files(state, stands, ring, utc_now()))
    left = f"; {len(view.unsigned)} unsigned" if view.unsigned else ""
    console.say(f"signed: {len(fresh)} new, {len(stale)} removed{left}")


def _standings(found: tuple[object, ...]) -> list[Standing]:
    from orchestrator.services.ports import Standing

    return sorted(
        Standing(one.model, one.version, one.manifest_sha256, one.length)  # type: ignore[attr-defined]
        for one in found
    )


def _wanted(view: TrustView, refs: tuple[str, ...]) -> list[Standing]:
    """The unsigned versions that are meant; all of them where none is named."""
    from orchestrator.errors import NotFound

    there = _standings(view.unsigned)
    if not refs:
        return there
    by_ref = {f"{stand.model}@{stand.version}": stand for stand in there}
    for ref in refs:
        if ref not in by_ref:
            msg = f"{ref} does not wait for a signature"
            raise NotFound(msg, hint="`argosy trust status` lists those that do, as in digits@7")
    return [by_ref[ref] for ref in refs]


def _show(view: TrustView) -> None:
    from orchestrator.cli import console
    from orchestrator.cli.output import Cell, print_table

    rows: list[list[Cell]] = [
        [
            role.role,
            str(role.version),
            f"{role.expires.astimezone():%Y-%m-%d %H:%M}",
            f"{role.threshold} of {len(role.keys)}",
            "here" if role.online else f"{role.held} here" if role.held else "elsewhere",
            " ".join(keyid[:8] for keyid in role.keys),
        ]
        for role in view.roles
    ]
    print_table(["ROLE", "VERSION", "EXPIRES", "SIGN", "KEYS", "IDS"], rows)
    models = "1 model" if view.models == 1 else f"{view.models} models"
    console.say(f"root {view.root_sha256}; {models} signed", style="dim")
    for one in view.unsigned:
        console.say(f"unsigned  {one.model}@{one.version}  {one.manifest_sha256}")
    for one in view.stale:
        console.say(f"revoked, still listed  {one.model}@{one.version}")
    for problem in view.problems:
        console.say(f"! {problem}", style="yellow")


for _command in (init, rotate, renew, sign_root, upload):
    trust.add_command(_command)
