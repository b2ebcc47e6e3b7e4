"""``argosy trust sign-root`` and ``upload``: what several holders of keys do in turn."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from orchestrator.cli.options import home_option

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("sign-root")
@click.argument("file", type=_FILE)
@click.option(
    "--keys",
    "folder",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder with your root key.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def sign_root(*, file: Path, folder: Path, yes: bool) -> None:
    """Add your signature to a new root that another holder has made.

    It needs no platform and no network; look at what you sign.

    For example:

        argosy trust sign-root 3.root.json --keys /media/stick2
    """
    from tuf.api.metadata import Root

    from orchestrator.adapters.trust import ceremony
    from orchestrator.adapters.trust.documents import read
    from orchestrator.adapters.trust.keys import SHORT, load_keys
    from orchestrator.cli import console
    from orchestrator.cli.asking import confirm
    from orchestrator.cli.trust_place import read_files, require_packages
    from orchestrator.home import write_atomic

    require_packages()
    raw = read_files((file,))[file.name]
    document = read(raw, Root, file.name)
    root = document.signed
    console.say(f"root version {root.version}, valid until {root.expires:%Y-%m-%d}")
    for name, role in sorted(root.roles.items()):
        ids = " ".join(keyid[:SHORT] for keyid in role.keyids)
        console.say(f"  {name:<10} {role.threshold} of {len(role.keyids)}  {ids}")
    ring = load_keys(folder)
    confirm("Sign this root?", yes=yes)
    signed = ceremony.sign_root(raw, ring)
    write_atomic(file, signed, 0o644)
    own, _ = ceremony.signatures(read(signed, Root, file.name), root)
    console.say(f"signed: {own.given} of the {own.needed} signatures that its own keys must give")
    if own.enough:
        console.say(f"publish it with: argosy trust upload {file}", style="dim")


@click.command()
@click.argument("files", nargs=-1, required=True, type=_FILE)
@home_option
def upload(*, files: tuple[Path, ...], home: Path | None) -> None:
    """Publish metadata files that are signed: all of them are taken, or none.

    For example:

        argosy trust upload 3.root.json

        argosy trust upload 3.root.json 5.targets.json
    """
    from orchestrator.cli import console
    from orchestrator.cli.trust_place import place_of, read_files

    raw = read_files(files)
    with place_of(home) as place:
        place.take(raw)
    console.say(f"published: {', '.join(raw)}")
