"""``argosy trust init`` and ``rotate``: new keys, and the metadata that says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option
from orchestrator.cli.trust_known import root_option
from orchestrator.cli.trust_renew import deliver
from orchestrator.clock import utc_now

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, Key

    from orchestrator.adapters.trust.keys import Keyring
    from orchestrator.adapters.trust.state import State
    from orchestrator.cli.trust_place import Place
    from orchestrator.home import Home

_FOLDER = click.Path(file_okay=False, path_type=Path)
_LOOK = "keep them, and look with `argosy trust status` before you try again"
_CHANGEABLE = ("root", "targets", "models", "snapshot", "timestamp", "director")


@click.command()
@click.option("--offline", required=True, type=_FOLDER, help="Where the keys go: an empty folder.")
@click.option("--keys", "count", default=1, show_default=True, help="How many root keys.")
@click.option("--threshold", default=1, show_default=True, help="How many of them must sign.")
@click.option("--old", type=_FOLDER, help="Where the present keys are, if not in the home.")
@click.option("--out", type=_FOLDER, default=Path(), help="For files that need more signatures.")
@home_option
def init(
    *, offline: Path, count: int, threshold: int, old: Path | None, out: Path, home: Path | None
) -> None:
    """Make keys of root, targets and releases in a folder of their own.

    Before the first `argosy up`: the platform begins with them. After: they replace the
    present ones, which are deleted from HOME/trust/keys; devices follow by themselves. Run it
    on the platform's machine.

    For example:

        argosy trust init --offline /media/keys

        argosy trust init --offline /media/keys --keys 3 --threshold 2
    """
    from orchestrator.adapters.trust import Offline, TrustStore
    from orchestrator.adapters.trust.ceremony import OFFLINE
    from orchestrator.adapters.trust.creation import make_offline
    from orchestrator.adapters.trust.keys import load_keys, ring_of
    from orchestrator.cli import console
    from orchestrator.cli.trust_place import home_of, place_of, require_packages

    require_packages()
    where = home_of(home)
    wanted = Offline(offline, count, threshold)
    if _is_new(where):
        where.prepare()
        TrustStore.open_or_create(where.trust, offline=wanted)
        _tell_offline(offline, threshold)
        return
    with place_of(where.path) as place:
        held = place.ring | load_keys(old) if old else place.ring
        before = _old_keyids(place.state, OFFLINE)
        made = make_offline(wanted)
        ring = held | ring_of(signer for found in made.values() for signer in found)
        keys = {role: [s.public_key for s in found] for role, found in made.items()}
        with _kept_unless_refused(offline, [s for found in made.values() for s in found]):
            done = _change(place, keys, ring, threshold=threshold, out=out)
        if done and place.keys is not None:
            for path in _drop(place.keys, before):
                console.say(f"deleted {path}", style="dim")
    _tell_offline(offline, threshold)


@click.command()
@click.argument("role", type=click.Choice(_CHANGEABLE))
@click.option("--keys", "folder", type=_FOLDER, help="The folder with the keys that sign it.")
@click.option("--replace", metavar="ID", help="Of root: the one key to replace, by its id.")
@click.option("--count", type=click.IntRange(1, 20), help="Of root: how many keys from now on.")
@click.option("--threshold", type=int, help="Of root: how many must sign from now on.")
@click.option("--out", type=_FOLDER, default=Path(), help="For files that need more signatures.")
@root_option
@home_option
def rotate(
    *,
    role: str,
    folder: Path | None,
    replace: str | None,
    count: int | None,
    threshold: int | None,
    out: Path,
    root: str | None,
    home: Path | None,
) -> None:
    """Give a role a new key, and publish the metadata that says so.

    A new key of snapshot, timestamp or director is made on the platform's machine; a new key
    of root, targets or models goes beside the old one. Where the root needs more signatures
    than there are keys here, a file is written for the other holders:
    `argosy trust sign-root`.

    For example:

        argosy trust rotate timestamp

        argosy trust rotate models --keys /media/keys

        argosy trust rotate root --replace 3fa9c1d2 --keys /media/stick1
    """
    from orchestrator.adapters.trust.ceremony import ONLINE
    from orchestrator.adapters.trust.keys import load_keys, make_keys, ring_of
    from orchestrator.cli import console
    from orchestrator.cli.trust_place import place_of
    from orchestrator.errors import Invalid

    if role != "root" and (replace or count or threshold):
        msg = f"--replace, --count and --threshold are of root, not of {role}"
        raise Invalid(msg, hint="argosy trust rotate --help")
    with place_of(home, root) as place:
        ring = place.ring | load_keys(folder) if folder else place.ring
        state = place.state
        kept, number = _kept(state, role, replace, count)
        target = place.keys if role in ONLINE or folder is None else folder
        if target is None:
            msg = f"a new key of {role} cannot be made from here"
            hint = (
                "run it on the platform's machine"
                if role in ONLINE
                else "name the folder that holds the keys, with --keys"
            )
            raise Invalid(msg, hint=hint)
        before = [k for k in _old_keyids(state, (role,)) if k not in {key.keyid for key in kept}]
        made = make_keys(target, role, number)
        keys = {role: [*kept, *(signer.public_key for signer in made)]}
        with _kept_unless_refused(target, made):
            done = _change(place, keys, ring | ring_of(made), threshold=threshold, out=out)
        if done:
            _drop(target, before)
    _tell_keys(made, target)
    if done:
        console.say(f"{role} is signed by its new key")


def _is_new(home: Home) -> bool:
    """Whether a platform is yet to begin here; a mere profile is of one elsewhere."""
    if any((home.trust / name).exists() for name in ("metadata/1.root.json", "root.json")):
        return False
    return home.database.exists() or not home.credentials_json.exists()


def _change(
    place: Place,
    keys: Mapping[str, Sequence[Key]],
    ring: Keyring,
    *,
    threshold: int | None,
    out: Path,
) -> bool:
    from orchestrator.adapters.trust.ceremony import change_keys

    return deliver(place, change_keys(place.state, keys, ring, utc_now(), threshold), out)


def _kept(state: State, role: str, replace: str | None, count: int | None) -> tuple[list[Key], int]:
    """The keys of a role that stay, and how many are made."""
    from orchestrator.adapters.trust.documents import keys_of
    from orchestrator.errors import Invalid

    delegator = state.targets if role in {"models", "director"} else state.root.signed
    there = keys_of(delegator, role)
    if replace is None:
        return [], count or len(there)
    kept = [key for key in there if not key.keyid.startswith(replace)]
    if len(kept) != len(there) - 1:
        ids = ", ".join(key.keyid[:8] for key in there)
        msg = f"--replace {replace}: {role} has no such key; it has {ids}"
        raise Invalid(msg, hint="name one by the start of its id")
    return kept, 1


def _old_keyids(state: State, roles: tuple[str, ...]) -> list[str]:
    found = []
    for role in roles:
        delegator = state.targets if role in {"models", "director"} else state.root.signed
        found += delegator.get_delegated_role(role).keyids
    return found


@contextmanager
def _kept_unless_refused(folder: Path, made: Sequence[CryptoSigner]) -> Iterator[None]:
    """Delete new keys where a change surely failed; where it may not have, they stay."""
    from orchestrator.cli import console
    from orchestrator.cli.trust_known import refused_before_writing

    try:
        yield
    except BaseException as error:
        if refused_before_writing(error):
            _drop(folder, [signer.public_key.keyid for signer in made])
        else:
            _tell_keys(list(made), folder)
            console.say(f"these may be in force already: {_LOOK}", style="yellow")
        raise


def _drop(folder: Path, keyids: list[str]) -> list[Path]:
    from orchestrator.adapters.trust.keys import drop_keys

    return drop_keys(folder, keyids)


def _tell_keys(made: list[CryptoSigner], folder: Path) -> None:
    from orchestrator.cli import console

    for signer in made:
        console.say(f"new key {signer.public_key.keyid[:8]} in {folder}", style="dim")


def _tell_offline(folder: Path, threshold: int) -> None:
    from orchestrator.cli import console

    names = sorted(path.name for path in folder.glob("*.pem"))
    roots = [name for name in names if name.startswith("root-")]
    console.say(f"keys are in {folder}:")
    for name in names:
        console.say(f"  {name}")
    if len(roots) > 1:
        console.say(f"give each root key to another holder; {threshold} of them must sign")
    console.say("keep copies; without them the platform's devices must be enrolled anew")
    console.say(f"sign what was registered with: argosy trust sign --keys {folder}")
