"""The user's code: fetched with the job's token, checked, and unpacked once per content.

The archive is of the user's making. Nothing of it is believed: names, sizes and kinds of
entries are checked before the first byte is written, sizes again as the bytes come.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, NoReturn

from schemas.job import JobCause
from schemas.jobfile import RESERVED_MODULES
from schemas.lineage import MAX_CODE_FILES, MAX_UNPACKED_BYTES, Code
from schemas.modules import hidden_by
from workers.errors import JobFailed, RefusedError
from workers.files import drop_stale

log = logging.getLogger(__name__)

MAX_RATIO = 200
"""How many bytes one packed byte may become, beyond the first 64 MiB: text stays below 50."""

MAX_DEPTH = 32
MAX_CACHE_BYTES = 2 * 1024**3
MAX_CACHE_FOLDERS = 50

_BLOCK = 1024**2
_FREE = 64 * 1024**2
_RAYS_OWN = ".rayignore"  # would make Ray leave files out of what it sends to the nodes
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 0x1
_MODULE_ENDINGS = frozenset({"py", "pyc", "so", "pyd", "zip"})

Fetch = Callable[[str, Path, int], object]
"""(sha256, path, max_bytes): write the artifact there, its hash checked."""


class CodeCache:
    """``HOME/agent/code/<sha256>``: folders of user code, least recently used dropped first."""

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int = MAX_CACHE_BYTES,
        max_folders: int = MAX_CACHE_FOLDERS,
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_folders = max_folders

    def folder_of(self, code: Code, fetch: Fetch) -> Path:
        """The unpacked folder, fetched if it is not there.

        Raises:
            JobFailed: the archive is not there, or must not be unpacked.
            ApiError: it could not be fetched just now.
        """
        target = self._folder / code.sha256
        if not target.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryDirectory(prefix=".new-", dir=self._folder) as name:
                archive, unpacked = Path(name) / "code.zip", Path(name) / "code"
                _fetch(code, archive, fetch)
                unpack(archive, unpacked)
                _moved(unpacked, target)
        os.utime(target)
        return target

    def prune(self, in_use: Collection[str]) -> None:
        """Drop the least recently used beyond the limits, but none of ``in_use`` (digests)."""
        if not self._folder.is_dir():
            return
        drop_stale(self._folder)
        found = [p for p in self._folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
        found.sort(key=lambda p: p.stat().st_mtime, reverse=True)
        total = 0
        for n, path in enumerate(found, 1):
            total += _size(path)
            if (n > self._max_folders or total > self._max_bytes) and path.name not in in_use:
                log.info("dropping unused code %s", path.name[:12])
                shutil.rmtree(path, ignore_errors=True)


def unpack(archive: Path, target: Path) -> None:
    """Unpack an archive into a new folder.

    Raises:
        JobFailed: it is no plain zip archive, or breaks a limit; the folder may be left half.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            entries = _checked(source, archive.stat().st_size)
            target.mkdir(mode=0o700)
            left = MAX_UNPACKED_BYTES
            for entry, path in entries:
                left -= _write(source, entry, target / path, left)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        _refuse(f"it is damaged: {error}")
    except OSError as error:
        if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
            _refuse(f"two entries claim one name: {error.filename}")
        raise


def _checked(source: zipfile.ZipFile, packed: int) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    entries = source.infolist()
    if len(entries) > MAX_CODE_FILES:
        _refuse(f"it has {len(entries)} entries, more than {MAX_CODE_FILES}")
    total = sum(entry.file_size for entry in entries)
    if total > MAX_UNPACKED_BYTES:
        _refuse(f"it would unpack to {total} bytes, more than {MAX_UNPACKED_BYTES}")
    if total > _FREE + MAX_RATIO * packed:
        _refuse(f"its {packed} bytes would become {total}")
    found = [(entry, _path(entry)) for entry in entries if not entry.is_dir()]
    _no_shadows([path for _, path in found])
    return [(entry, path) for entry, path in found if path.parts != (_RAYS_OWN,)]


def _path(entry: zipfile.ZipInfo) -> PurePosixPath:
    """Where an entry goes; refused if that is not strictly below the folder."""
    name = entry.filename
    path = PurePosixPath(name)
    shown = name[:200].encode("unicode_escape").decode()
    bad = "\\" in name or ":" in name.split("/")[0] or any(ord(c) < ord(" ") for c in name)
    if bad or path.is_absolute() or not path.parts or ".." in name.split("/"):
        _refuse(f"entry {shown!r} does not lie inside it")
    if len(path.parts) > MAX_DEPTH or len(name.encode()) > os.pathconf("/", "PC_PATH_MAX") // 4:
        _refuse(f"entry {shown!r} is nested too deep or has too long a name")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in {0, stat.S_IFREG}:
        _refuse(f"entry {shown!r} is a link or a device; only plain files may be packed")
    if entry.compress_type not in _METHODS or entry.flag_bits & _ENCRYPTED:
        _refuse(f"entry {shown!r} is encrypted or packed by another method than deflate")
    return path


def _no_shadows(paths: Sequence[PurePosixPath]) -> None:
    for path in paths:
        first = path.parts[0]
        module, _, ending = first.partition(".")
        is_module = len(path.parts) > 1 or ending.rpartition(".")[2] in _MODULE_ENDINGS
        if is_module and module in RESERVED_MODULES and (len(path.parts) == 1 or not ending):
            _refuse(f"{first} at its top would hide the platform's own module; rename it")
        if hidden_by(str(path)) is not None:
            _refuse(f"{first} at its top would hide Python's own module of that name; rename it")


def _write(source: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, left: int) -> int:
    """Write one file; its size. left: bytes that may still be written."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    size = 0
    with source.open(entry) as packed, path.open("xb") as file:
        while block := packed.read(_BLOCK):
            size += len(block)
            if size > entry.file_size or size > left:
                _refuse(f"entry {entry.filename[:200]!r} is larger than it says")
            file.write(block)
        _sync(file)
    executable = (entry.external_attr >> 16) & stat.S_IXUSR
    path.chmod(0o700 if executable else 0o600)
    return size


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fdatasync(file.fileno())


def _fetch(code: Code, archive: Path, fetch: Fetch) -> None:
    try:
        fetch(code.sha256, archive, code.size)
    except RefusedError as error:
        if error.status not in {403, 404}:
            raise
        detail = f"the job's code cannot be fetched: {error.message}; submit it again"
        raise JobFailed(JobCause.ENVIRONMENT, detail) from error


def _moved(unpacked: Path, target: Path) -> None:
    try:
        unpacked.rename(target)
    except OSError:
        if not target.is_dir():  # else another thread was first, with the same content
            raise


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def _refuse(why: str) -> NoReturn:
    raise JobFailed(JobCause.ENVIRONMENT, f"the job's code archive is refused: {why}")
