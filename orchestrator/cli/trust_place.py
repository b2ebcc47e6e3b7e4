"""Where the trust metadata is changed: in the home of a platform, or by its API."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from orchestrator.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from orchestrator.adapters.trust.keys import Keyring
    from orchestrator.adapters.trust.state import State
    from orchestrator.adapters.trust.store import TrustStore
    from orchestrator.client import Argosy
    from orchestrator.home import Home
    from schemas.trust import TrustView


class Place(Protocol):
    """Metadata that can be read and replaced."""

    @property
    def state(self) -> State:
        """What is published."""
        ...

    @property
    def ring(self) -> Keyring:
        """The private keys that are there."""
        ...

    @property
    def keys(self) -> Path | None:
        """Their folder; None where they are out of reach."""
        ...

    def view(self) -> TrustView:
        """How it stands."""
        ...

    def take(self, files: Mapping[str, bytes]) -> None:
        """Publish files, all of them or nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A platform on another machine. root: the SHA-256 of a root that it must have had."""

    argosy: Argosy
    root: str | None = None

    @property
    def state(self) -> State:
        """What it publishes, checked from its first root up, and against what was seen before.

        Raises:
            Invalid, Conflict: it may not be signed over (``trust_known``).
        """
        return published_by(self.argosy, self.root)

    @property
    def ring(self) -> Keyring:
        """None of its keys."""
        from orchestrator.adapters.trust.keys import Keyring

        return Keyring()

    @property
    def keys(self) -> Path | None:
        """Out of reach."""
        return None

    def view(self) -> TrustView:
        """What it says of itself."""
        return self.argosy.trust.get()

    def take(self, files: Mapping[str, bytes]) -> None:
        """Upload."""
        upload_to(self.argosy, files)


@dataclass(frozen=True, slots=True)
class Here:
    """The home of a platform on this machine. argosy: the platform, while it runs."""

    store: TrustStore
    argosy: Argosy | None

    @property
    def state(self) -> State:
        """What is published."""
        return self.store.state

    @property
    def ring(self) -> Keyring:
        """The keys that the server has."""
        return self.store.keyring

    @property
    def keys(self) -> Path | None:
        """``HOME/trust/keys``."""
        return self.store.keys_folder

    def view(self) -> TrustView:
        """What the running platform says, which knows the registry; else what is on disk."""
        return self.store.status() if self.argosy is None else self.argosy.trust.get()

    def take(self, files: Mapping[str, bytes]) -> None:
        """Have the running platform take them, which keeps a record of it; else write them."""
        if self.argosy is None:
            self.store.accept(files, None)
        else:
            self.argosy.trust.upload(files)


def published_by(argosy: Argosy, root: str | None = None) -> State:
    """What a platform publishes, once a key may sign over it.

    Raises:
        Invalid, Conflict: it may not (``trust_known``).
    """
    from orchestrator.adapters.trust.state import read_state
    from orchestrator.cli.trust_known import Known
    from orchestrator.client.profiles import Profiles

    state = read_state(argosy.trust.metadata)
    Known(Profiles.of(), argosy.url).check(state, root)
    return state


def upload_to(argosy: Argosy, files: Mapping[str, bytes]) -> TrustView:
    """Publish files by a platform's API, and remember their versions."""
    from orchestrator.cli.trust_known import Known
    from orchestrator.client.profiles import Profiles

    view = argosy.trust.upload(files)
    Known(Profiles.of(), argosy.url).add(files)
    return view


@contextmanager
def place_of(home: Path | None, root: str | None = None) -> Iterator[Place]:
    """The metadata of a platform: that of the home on this machine, else by its API.

    root: the SHA-256 of a root, to know a platform elsewhere by.

    Raises:
        ProfileError: there is neither a home nor a profile.
        Unavailable: the packages that sign are not installed, or the home is damaged.
    """
    require_packages()
    from orchestrator.client import Argosy

    where = home_of(home)
    if not (where.trust / "metadata" / "1.root.json").exists():
        with Argosy.from_profile(home) as argosy:
            yield Elsewhere(argosy, root)
        return
    from orchestrator.adapters.trust import TrustStore

    store = TrustStore.open(where.trust)
    if where.up() is None:
        yield Here(store, None)
        return
    with Argosy.from_profile(where.path) as argosy:
        yield Here(store, argosy)


def require_packages() -> None:
    """See that what signs is installed: an operator's machine may have the base alone.

    Raises:
        Unavailable: it is not.
    """
    if importlib.util.find_spec("tuf") is None:
        msg = "signing needs python-tuf, which is not installed"
        raise Unavailable(msg, hint="pip install 'argosy[server]'")


def home_of(home: Path | None) -> Home:
    """The home folder that is meant: ``--home``, ``$ARGOSY_HOME``, ``~/.argosy``."""
    from orchestrator.client.profile import home_folder
    from orchestrator.home import Home

    return Home(home or home_folder())


def read_files(paths: tuple[Path, ...]) -> dict[str, bytes]:
    """Metadata files from disk, by name.

    Raises:
        Invalid: one cannot be read, or is too large.
    """
    from schemas.trust import MAX_METADATA_BYTES

    files: dict[str, bytes] = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_METADATA_BYTES + 1)
        except OSError as error:
            msg = f"cannot read {path}: {error.strerror}"
            raise Invalid(msg) from error
        if len(raw) > MAX_METADATA_BYTES:
            msg = f"{path} is larger than {MAX_METADATA_BYTES} bytes: it is no metadata file"
            raise Invalid(msg)
        files[path.name] = raw
    return files
