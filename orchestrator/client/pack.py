"""Packing a user's folder into an archive whose bytes follow from its contents alone."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO

from orchestrator.client.checkout import revision
from orchestrator.client.secrecy import MAX_SCANNED, Secret, secret_name, secrets_in
from orchestrator.client.selection import Found, select
from orchestrator.errors import Invalid, TooLarge, Unavailable
from schemas.errors import FieldError
from schemas.jobfile import RESERVED_MODULES
from schemas.lineage import MAX_CODE_BYTES, MAX_CODE_FILES, MAX_UNPACKED_BYTES, Code
from schemas.modules import hidden_by

FREE_BYTES = 64 * 1024**2
MAX_RATIO = 200
"""Bytes for each packed one, beyond the first: what an agent unpacks."""

REQUIREMENTS = "requirements.txt"
MAX_NAMED = 10

_PIECE = 1024 * 1024
_LEVEL = 6
# The earliest time that a zip archive can hold.
_TIME = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_MODULE_ENDINGS = frozenset({"py", "pyc", "so", "pyd", "zip"})


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed folder. code: as it goes into a spec. path: of the archive. names: of the files."""

    code: Code
    path: Path
    names: tuple[str, ...]


@contextmanager
def packed(folder: Path) -> Iterator[Packed]:
    """Pack a folder into a temporary file, which is gone afterwards.

    The archive is a zip of plain files, sorted, with one time and one of two modes, so that
    the same contents give the same SHA-256 (with the same zlib).

    Raises:
        Invalid: there is nothing to pack, or something that must not be: a secret, a link
            that leads out, a module that would shadow the platform's.
        TooLarge: too many files or bytes; the largest are named.
    """
    top = _folder(folder)
    found = select(top)
    _check_names(top, found)
    _check_sizes(found)
    with tempfile.NamedTemporaryFile(prefix="argosy-code-", suffix=".zip") as file:
        try:
            _write(file, found)
            sha256, size = _digest(file)
        except OSError as error:
            detail = f"the archive cannot be written in {tempfile.gettempdir()}: {error.strerror}"
            raise Unavailable(detail, hint="make room there, or set TMPDIR") from error
        at = revision(top, {one.tracked_as for one in found})
        names = tuple(one.name for one in found)
        code = Code(
            sha256=sha256,
            size=size,
            files=len(found),
            requirements=REQUIREMENTS in names,
            git_commit=at.commit if at else None,
            git_dirty=at.dirty if at else False,
        )
        yield Packed(code, Path(file.name), names)


def _folder(folder: Path) -> Path:
    try:
        top = folder.expanduser().resolve(strict=True)
    except (OSError, RuntimeError) as error:
        detail = f"{folder} cannot be packed: there is no such folder"
        raise Invalid(detail, hint="`code` names the folder of the task's code") from error
    if not top.is_dir():
        detail = f"{folder} cannot be packed: it is not a folder"
        raise Invalid(detail, hint="`code` names the folder of the task's code")
    if top == Path(top.anchor) or top == Path.home():
        detail = f"{folder} is a whole home or disk, not a folder of code"
        raise Invalid(detail, hint="put the code into a folder of its own")
    return top


def _check_names(top: Path, found: Sequence[Found]) -> None:
    if not found:
        detail = f"there is nothing to pack in {top}"
        raise Invalid(detail, hint="is everything ignored, by .gitignore or .argosyignore?")
    for one in found:
        first, _, below = one.name.partition("/")
        module, _, ending = first.partition(".")
        shadows = bool(below) and first in RESERVED_MODULES
        shadows |= module in RESERVED_MODULES and ending.rpartition(".")[2] in _MODULE_ENDINGS
        if shadows:
            detail = f"{top / first} would hide the platform's own module {module!r}"
            raise Invalid(detail, hint="rename it, or move it a folder down")
        standard = hidden_by(one.name)
        if standard is not None:
            detail = f"{top / first} would hide Python's own module {standard!r}"
            raise Invalid(detail, hint="rename it, or move it a folder down")


def _check_sizes(found: Sequence[Found]) -> None:
    if len(found) > MAX_CODE_FILES:
        tops = Counter(one.name.partition("/")[0] for one in found if "/" in one.name)
        most = [(f"{name}/", f"{n:,} files") for name, n in tops.most_common(5)]
        detail = f"the folder has {len(found):,} files, more than {MAX_CODE_FILES:,}"
        raise _too_large(detail, most)
    total = sum(one.size for one in found)
    if total > MAX_UNPACKED_BYTES:
        limit = MAX_UNPACKED_BYTES // 1024**2
        detail = f"the folder holds {total / 1024**2:,.0f} MiB, more than {limit} MiB"
        raise _too_large(detail, _largest(found))


def _largest(found: Sequence[Found]) -> list[tuple[str, str]]:
    total = sum(one.size for one in found)
    by_size = sorted(found, key=lambda one: -one.size)[:5]
    large = [one for one in by_size if one.size * 100 >= total]
    return [(one.name, f"{one.size / 1024**2:,.1f} MiB") for one in large]


def _too_large(detail: str, largest: Sequence[tuple[str, str]]) -> TooLarge:
    hint = "name data, weights and results in .argosyignore; data goes where every node sees it"
    fields = [FieldError(field=name, message=size) for name, size in largest]
    return TooLarge(detail, hint=hint, fields=fields)


def _write(file: IO[bytes], found: Sequence[Found]) -> None:
    secrets: list[Secret] = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        for one in found:
            by_name = secret_name(one.name) or secret_name(one.path.name)
            if by_name is not None:
                secrets.append(by_name)
                continue
            secrets += _add(archive, one)
            if file.tell() > MAX_CODE_BYTES:
                break
    if secrets:
        raise _refused(secrets)
    if file.tell() > MAX_CODE_BYTES:
        detail = f"the folder packs to more than {MAX_CODE_BYTES // 1024**2} MiB"
        raise _too_large(detail, _largest(found))
    total = sum(one.size for one in found)
    if total > FREE_BYTES + MAX_RATIO * file.tell():
        detail = f"the folder's {total / 1024**2:,.0f} MiB are nearly all the same byte"
        raise _too_large(detail, _largest(found))


def _add(archive: zipfile.ZipFile, one: Found) -> list[Secret]:
    info = zipfile.ZipInfo(one.name, _TIME)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = _UNIX
    info.external_attr = (0o100755 if one.executable else 0o100644) << 16
    info.file_size = one.size
    secrets: list[Secret] = []
    pieces = _pieces(one)
    head = next(pieces, b"")
    if len(head) <= MAX_SCANNED:
        secrets += secrets_in(one.name, head)
    written = 0
    with archive.open(info, "w") as target:
        for piece in chain([head], pieces):
            written += len(piece)
            if written > one.size:
                break
            target.write(piece)
    if written != one.size:
        detail = f"{one.name} changed while it was packed"
        raise Invalid(detail, hint="submit again when nothing writes to it")
    return secrets


def _pieces(one: Found) -> Iterator[bytes]:
    """The file's bytes; the first piece is as long as what is searched for secrets."""
    try:
        with one.path.open("rb") as source:
            size = MAX_SCANNED + 1
            while piece := source.read(size):
                yield piece
                size = _PIECE
    except OSError as error:
        detail = f"{one.name} cannot be read: {error.strerror}"
        hint = "name it in .argosyignore, if the job does not need it"
        raise Invalid(detail, hint=hint) from error


def _refused(secrets: Sequence[Secret]) -> Invalid:
    first, more = secrets[0], len(secrets) - 1
    detail = f"{first.where}: {first.what} must not leave this machine"
    if more:
        detail += f", and {more} more"
    hint = "name the file in .argosyignore, and give the job its secrets on the cluster"
    shown = secrets[1 : MAX_NAMED + 1]
    return Invalid(
        detail, hint=hint, fields=[FieldError(field=one.where, message=one.what) for one in shown]
    )


def _digest(file: IO[bytes]) -> tuple[str, int]:
    file.flush()
    file.seek(0)
    whole, size = hashlib.sha256(), 0
    while piece := file.read(_PIECE):
        whole.update(piece)
        size += len(piece)
    return whole.hexdigest(), size
