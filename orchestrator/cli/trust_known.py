"""What a platform publishes, held against what was seen of it here, before a key signs over it.

Whoever took the server over can answer with metadata of their own making. A key that is brought
in from elsewhere must not vouch for that: a release key that signs every model's role anew
would sign what was slipped in between, and a root key would sign another's keys. So the root
has to follow from one that was compared by a person, every role has to be signed by the keys
that this root leads to, and no role may be older than it was here before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.errors import ArgosyError, Conflict, Invalid

if TYPE_CHECKING:
    from orchestrator.adapters.trust.state import State
    from orchestrator.client.profiles import Profiles

_MAX_BYTES = 256 * 1024

root_option = click.option(
    "--root",
    metavar="HEX",
    help="SHA-256 of a root of the platform, to know it by at the first time.",
)
"""Says what ``Known.check`` would otherwise ask."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest root that was seen, by version and SHA-256, and the versions of the roles."""

    version: int
    sha256: str
    roles: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Known:
    """What is remembered of the platform at an address."""

    profiles: Profiles
    url: str

    @property
    def path(self) -> Path:
        """The file."""
        name = hashlib.sha256(self.url.encode()).hexdigest()[:32]
        return self.profiles.folder / "trust" / f"{name}.json"

    def check(self, state: State, root: str | None = None) -> None:
        """See that a key may sign over what a platform says is published; remember it.

        Args:
            state: what it says.
            root: the SHA-256 of a root that it must have had.

        Raises:
            Invalid: nobody can be asked about a platform that was never seen here.
            Conflict: it contradicts what was seen, or is not signed as it must be.
        """
        from orchestrator.adapters.trust.state import digest

        digests = [digest(raw) for raw in state.roots]
        seen = self._seen()
        if root is not None and root.strip().lower() not in digests:
            msg = f"{self.url} has no root with the SHA-256 {root}"
            raise Conflict(msg, hint="sign nothing: something may stand between you and it")
        if seen is None and root is None:
            _ask(self.url, state, digests[-1])
        if seen is not None:
            self._compare(seen, state, digests)
        unsound = sorted(state.unsound & set(state.roles))
        if unsound:
            msg = f"{unsound[0]} is not signed by the keys that the platform's root leads to"
            hint = "where a change of keys was cut off, renew it on the platform's machine"
            raise Conflict(msg, hint=hint)
        roles = {role: document.signed.version for role, document in state.roles.items()}
        self._keep(Seen(len(digests), digests[-1], roles))

    def add(self, files: Mapping[str, bytes]) -> None:
        """Remember the roles that were just published from here."""
        from orchestrator.adapters.trust.planning import versions_of

        seen = self._seen()
        if seen is not None:
            self._keep(replace(seen, roles={**seen.roles, **versions_of(files)}))

    def _keep(self, seen: Seen) -> None:
        self.profiles.write(self.path, json.dumps(asdict(seen)))

    def _compare(self, seen: Seen, state: State, digests: list[str]) -> None:
        hint = f"sign nothing; if the platform was made anew or restored, delete {self.path}"
        if len(digests) < seen.version or digests[seen.version - 1] != seen.sha256:
            msg = f"the root of {self.url} does not follow from {seen.sha256}, seen here before"
            raise Conflict(msg, hint=hint)
        versions = state.versions()
        for role, version in seen.roles.items():
            if versions.get(role, 0) < version:
                msg = f"{role} of {self.url} is older than version {version}, seen here before"
                raise Conflict(msg, hint=hint)

    def _seen(self) -> Seen | None:
        try:
            with self.path.open("rb") as file:
                values = json.loads(file.read(_MAX_BYTES))
            roles = {str(role): int(number) for role, number in values["roles"].items()}
            return Seen(int(values["version"]), str(values["sha256"]), roles)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            # Never as if the platform were new: that would ask nobody who does not look.
            msg = f"{self.path} cannot be read"
            raise Conflict(msg, hint="restore it, or delete it and compare the root") from error


def refused_before_writing(error: BaseException) -> bool:
    """Whether an upload surely changed nothing: else its new keys may be in force."""
    return isinstance(error, ArgosyError) and error.status in _REFUSALS


_REFUSALS = frozenset({401, 403, 404, 409, 413, 422, 429})


def _ask(url: str, state: State, digest: str) -> None:
    from orchestrator.adapters.trust.keys import SHORT
    from orchestrator.cli import console
    from orchestrator.cli.asking import is_anyone_there

    if not is_anyone_there():
        msg = f"the trust metadata of {url} was never seen here, and nobody can be asked"
        hint = "say --root HEX: `argosy trust status` shows it on the platform's machine"
        raise Invalid(msg, hint=hint)
    console.say(f"the trust metadata of {url} is seen here for the first time; its root is")
    console.say(f"  {digest}", style="bold")
    for name, role in sorted(state.root.signed.roles.items()):
        ids = " ".join(keyid[:SHORT] for keyid in role.keyids)
        console.say(f"  {name:<10} {role.threshold} of {len(role.keyids)}  {ids}")
    console.say("`argosy trust status` shows it on the platform's machine; compare them.")
    click.confirm("Is it the same?", abort=True, err=True)
