"""The profiles that ``argosy login`` keeps, and which of them is in use.

~/.config/argosy/            0700; $XDG_CONFIG_HOME (XDG Base Directory) moves it
  profiles/NAME.json         0600: {"url", "token", "ca"}, ca as PEM text
  current                    the name of the one in use
  audit/<digest>.json        how far an audit log was verified (``audit_chain``)
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.client.errors import Invalid, ProfileError
from orchestrator.home import write_atomic

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MAX_NAME_BYTES = 100


@dataclass(frozen=True, slots=True)
class Profiles:
    """Profiles in a folder."""

    folder: Path

    @classmethod
    def of(cls, env: Mapping[str, str] | None = None) -> Profiles:
        """Those of the user: in ``$XDG_CONFIG_HOME/argosy``, else ``~/.config/argosy``."""
        set_to = (os.environ if env is None else env).get("XDG_CONFIG_HOME") or ""
        base = Path(set_to) if Path(set_to).is_absolute() else Path.home() / ".config"
        return cls(base / "argosy")

    def names(self) -> list[str]:
        """The names of all."""
        files = self.folder.glob("profiles/*.json")
        return sorted(path.stem for path in files if _NAME.fullmatch(path.stem))

    def path(self, name: str) -> Path:
        """The file of a profile.

        Raises:
            ProfileError: there is none of that name.
        """
        if name not in self.names():
            there = ", ".join(self.names()) or "none"
            detail = f"there is no profile {name!r}; there is {there}"
            raise ProfileError(detail, hint=f"make it with: argosy login URL --profile {name[:63]}")
        return self._path(name)

    def in_use(self) -> str | None:
        """The one that is used where nothing else is said; None where there is none."""
        try:
            with (self.folder / "current").open("rb") as file:
                name = file.read(_MAX_NAME_BYTES).decode("ascii", "replace").strip()
        except OSError:
            return None
        return name if name in self.names() else None

    def save(self, name: str, url: str, token: str, ca: str | None) -> None:
        """Keep a profile, for its owner alone, and use it from now on. ca: as PEM text.

        Raises:
            Invalid: that cannot be a name.
            ProfileError: it cannot be written.
        """
        check_name(name)
        values = {"url": url, "token": token, "ca": ca}
        self.write(self._path(name), json.dumps(values, indent=2) + "\n")
        self.use(name)

    def use(self, name: str) -> None:
        """Use a profile where nothing else is said."""
        self.path(name)
        self.write(self.folder / "current", name + "\n")

    def remove(self, name: str) -> None:
        """Forget a profile."""
        self.path(name).unlink()

    def write(self, path: Path, text: str) -> None:
        """Replace a file of the folder, for its owner alone.

        Raises:
            ProfileError: it cannot be written.
        """
        try:
            for folder in (self.folder, path.parent):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(path, text.encode(), 0o600)
        except OSError as error:
            detail = f"cannot write {path}: {error.strerror}"
            raise ProfileError(detail, hint="XDG_CONFIG_HOME can name another folder") from error

    def _path(self, name: str) -> Path:
        return self.folder / "profiles" / f"{name}.json"


def check_name(name: str) -> None:
    """See that a profile can have that name.

    Raises:
        Invalid: it cannot.
    """
    if not _NAME.fullmatch(name):
        detail = f"{name!r} cannot be a profile's name"
        raise Invalid(detail, hint="names are lower-case letters, digits and hyphens, at most 63")
