"""The files of a code folder: found, in order, with links followed inside of it alone."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.client.ignore import Rules, excluded, never_packed, outer_rules, rules_of
from orchestrator.errors import Invalid, TooLarge

MAX_SEEN = 200_000
"""Files and folders looked at; beyond it the folder is not one of code."""

MAX_NAME = 1000
MAX_DEPTH = 32
# Control characters, what is no UTF-8, and what is a separator elsewhere.
_ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\\]|^[^/]*:")
_LEAVE_OUT = "name it in .argosyignore, if the job does not need it"


@dataclass(frozen=True, slots=True)
class Found:
    """A file to pack.

    name: its path in the folder, with slashes. path: where it really is. size: bytes.
    executable: may be run. tracked_as: the name under which version control would know
    it: its own, or that of the link that leads to it.
    """

    name: str
    path: Path
    size: int
    executable: bool
    tracked_as: str


def select(folder: Path) -> list[Found]:
    """The files of a folder, sorted by name, less what its ignore files leave out.

    Args:
        folder: absolute, without links in it.

    Raises:
        Invalid: a link leads out of the folder or nowhere, or a name cannot be packed.
        TooLarge: there are too many files to look at.
    """
    return sorted(_Walk(folder).run(), key=lambda found: found.name)


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder on the way down. real: without links, as are ``around``."""

    name: str
    real: Path
    around: tuple[Path, ...]
    rules: tuple[Rules, ...]
    tracked_as: str | None


class _Walk:
    def __init__(self, top: Path) -> None:
        self._top = top
        self._seen = 0

    def run(self) -> Iterator[Found]:
        yield from self._folder(_Place("", self._top, (), tuple(outer_rules(self._top)), None))

    def _folder(self, place: _Place) -> Iterator[Found]:
        own = rules_of(place.real)
        rules = (*place.rules, own) if own else place.rules
        for entry in self._entries(place):
            name = f"{place.name}{entry.name}"
            link = entry.is_symlink()
            path = self._inside(entry.path, name) if link else Path(entry.path)
            # A link is left out by its own name, and by that of what is never packed.
            if path is None or never_packed(entry.name) or self._is_never(path, link=link):
                continue
            folder = path.is_dir()
            if excluded(rules, f"{place.real}/{entry.name}{'/' if folder else ''}"):
                continue
            if link:
                self._must_be_inside(path, name)
            tracked = place.tracked_as or (name if link else None)
            if folder:
                around = (*place.around, place.real)
                if path in around:
                    detail = f"{name} is a link that leads back to a folder around it"
                    raise Invalid(detail, hint=_LEAVE_OUT)
                if len(around) >= MAX_DEPTH:
                    detail = f"{name} is nested deeper than {MAX_DEPTH} folders"
                    raise Invalid(detail, hint=_LEAVE_OUT)
                yield from self._folder(_Place(f"{name}/", path, around, rules, tracked))
            else:
                yield _file(name, path, tracked or name)

    def _entries(self, place: _Place) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(place.real) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            detail = f"{place.name or self._top} cannot be read: {error.strerror}"
            raise Invalid(detail, hint=_LEAVE_OUT) from error
        self._seen += len(entries)
        if self._seen > MAX_SEEN:
            detail = f"{self._top} holds more than {MAX_SEEN:,} files and folders"
            hint = "put the code into a folder of its own, or name the rest in .argosyignore"
            raise TooLarge(detail, hint=hint)
        return entries

    def _inside(self, path: str, name: str) -> Path:
        try:
            return Path(path).resolve(strict=False)
        except (OSError, RuntimeError) as error:
            detail = f"{name} is a link that leads nowhere"
            raise Invalid(detail, hint=_LEAVE_OUT) from error

    def _is_never(self, path: Path, *, link: bool) -> bool:
        if not link or not path.is_relative_to(self._top):
            return False
        return any(never_packed(part) for part in path.relative_to(self._top).parts)

    def _must_be_inside(self, path: Path, name: str) -> None:
        if not path.is_relative_to(self._top):
            detail = f"{name} is a link that leads out of {self._top}"
            raise Invalid(detail, hint=f"copy what it leads to, or {_LEAVE_OUT}")
        if not path.exists():
            detail = f"{name} is a link that leads nowhere"
            raise Invalid(detail, hint=_LEAVE_OUT)


def _file(name: str, path: Path, tracked_as: str) -> Found:
    raw = name.encode(errors="surrogateescape")
    if _ODD.search(name) or len(raw) > MAX_NAME:
        detail = f"{str(raw)[1:200]} is not a name that can be packed"
        raise Invalid(detail, hint=f"rename it, or {_LEAVE_OUT}")
    try:
        found = path.stat()
    except OSError as error:
        detail = f"{name} cannot be read: {error.strerror}"
        raise Invalid(detail, hint=_LEAVE_OUT) from error
    if not stat.S_ISREG(found.st_mode):
        detail = f"{name} is neither a file nor a folder"
        raise Invalid(detail, hint=_LEAVE_OUT)
    return Found(name, path, found.st_size, bool(found.st_mode & stat.S_IXUSR), tracked_as)
