"""``argosy trust renew``, and how signed files reach the platform or the next holder of a key."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option
from orchestrator.cli.trust_known import root_option
from orchestrator.clock import utc_now

if TYPE_CHECKING:
    from orchestrator.cli.trust_place import Place

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option("--keys", "folder", type=_FOLDER, help="The folder with keys that are elsewhere.")
@click.option("--all", "every", is_flag=True, help="Not only what expires within 90 days.")
@click.option("--anew", is_flag=True, help="Snapshot and timestamp, after the clock was wrong.")
@click.option("--out", type=_FOLDER, default=Path(), help="For files that need more signatures.")
@root_option
@home_option
def renew(
    *,
    folder: Path | None,
    every: bool,
    anew: bool,
    out: Path,
    root: str | None,
    home: Path | None,
) -> None:
    """Sign roles that expire soon for another year, with the same keys.

    Roles whose keys are neither here nor in the folder are left out.

    For example:

        argosy trust renew --keys /media/keys

        argosy trust renew --anew
    """
    from orchestrator.adapters.trust import ceremony
    from orchestrator.adapters.trust.keys import load_keys
    from orchestrator.adapters.trust.planning import RENEW_BEFORE
    from orchestrator.cli import console
    from orchestrator.cli.trust_place import Here, place_of
    from orchestrator.errors import Invalid

    with place_of(home, root) as place:
        if anew:
            if not isinstance(place, Here):
                msg = "--anew needs the online keys, which are with the platform"
                raise Invalid(msg, hint="run it on the platform's machine")
            place.store.renew_online()
            console.say("snapshot and timestamp are signed anew")
        ring = place.ring | load_keys(folder) if folder else place.ring
        within = timedelta(days=36500) if every else RENEW_BEFORE
        files = ceremony.renew(place.state, ring, utc_now(), within)
        if files:
            deliver(place, files, out)
    names = ", ".join(files) or "nothing expires within 90 days, of what the keys here can sign"
    console.say(names if not files else f"signed: {names}", style="dim")


def deliver(place: Place, files: dict[str, bytes], out: Path) -> bool:
    """Publish files, or write them to disk where their root needs more signatures.

    Returns:
        Whether they were published.
    """
    from tuf.api.metadata import Root

    from orchestrator.adapters.trust.ceremony import signatures
    from orchestrator.adapters.trust.documents import ROOT, read, split_name
    from orchestrator.cli import console
    from orchestrator.home import write_atomic

    roots = [name for name in files if split_name(name)[0] == ROOT]
    if roots:
        document = read(files[roots[0]], Root, roots[0])
        old, own = signatures(document, place.state.root.signed)
        if not (old.enough and own.enough):
            out.mkdir(parents=True, exist_ok=True)
            for name, raw in files.items():
                write_atomic(out / name, raw, 0o644)
            paths = " ".join(str(out / name) for name in files)
            console.say(
                f"{roots[0]} has {old.given} of {old.needed} signatures of the present root's"
                f" keys, and {own.given} of {own.needed} of its own"
            )
            console.say(f"next holder:  argosy trust sign-root {out / roots[0]} --keys FOLDER")
            console.say(f"then:         argosy trust upload {paths}")
            return False
    place.take(files)
    return True
