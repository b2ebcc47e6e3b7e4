"""What a job's requirements add to the platform's packages, on whichever node it runs.

An environment is a folder of packages below the cache of a node, named by everything it
follows from: the requirements, the platform's packages, the interpreter. It lies behind
the platform's packages in the search path and holds none of them, so torch is neither
copied nor installed again. (Ray's own ``pip`` environment copies the whole virtual
environment it runs in, gigabytes of it, per node and session.)

The driver's start makes it where the driver runs. Every Ray worker of the job, on any
node, comes through ``enter``, Ray's ``worker_process_setup_hook``, which finds it there
or makes it first.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from packaging.utils import canonicalize_name

from workers.environment import pip
from workers.environment.requirements import (
    MAX_BYTES,
    check,
    constraints,
    key_of,
    read,
    refuse,
    resolved,
)
from workers.errors import WorkerError
from workers.files import drop_stale, write_atomic
from workers.order import CODE, ENVIRONMENTS, INSTALL_SECONDS, REQUIREMENTS

log = logging.getLogger("workers.environment")

DEFAULT_SECONDS = 900.0
KEEP = 8
"""Environments kept on a node, beside those in use."""

_READY = "ready.json"
_PACKAGES = "packages"
_POLL = 0.2
_held: list[IO[str]] = []
"""Open locks of the environments that this process uses; they end with it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a process of a job needs. root: the node's cache. seconds: for installing."""

    file: Path
    code: str
    root: Path
    seconds: float = DEFAULT_SECONDS


def wanted(env: Mapping[str, str], folder: Path) -> Wanted | None:
    """What a process's variables ask for; None where the job has no requirements.

    folder: the job's working directory.
    """
    name = env.get(REQUIREMENTS)
    if not name:
        return None
    cache = env.get("XDG_CACHE_HOME") or "~/.cache"
    root = env.get(ENVIRONMENTS) or f"{cache}/argosy/environments"
    seconds = float(env.get(INSTALL_SECONDS) or DEFAULT_SECONDS)
    return Wanted(folder / name, env.get(CODE, ""), Path(root).expanduser(), seconds)


def enter() -> None:
    """Make the job's packages importable in this process, and in those it starts."""
    asked = wanted(os.environ, Path.cwd())
    if asked is None:
        return
    packages = str(ensure(asked))
    if packages not in sys.path:
        sys.path.append(packages)
    os.environ["PYTHONPATH"] = search_path(os.environ.get("PYTHONPATH", ""), packages)


def search_path(before: str, packages: str) -> str:
    """A PYTHONPATH with the packages as its last entry."""
    entries = [entry for entry in before.split(os.pathsep) if entry and entry != packages]
    return os.pathsep.join([*entries, packages])


def ensure(asked: Wanted, *, inherit: bool = False) -> Path:
    """The folder of packages, installed if it is not there.

    It stays locked against removal until the process ends. inherit: until those end too
    into which the process is changed.

    Raises:
        JobFailed: the requirements cannot be met.
        WorkerError: not at the moment: something could not be reached.
    """
    try:
        data = asked.file.read_bytes()[: MAX_BYTES + 1]
    except OSError as error:
        refuse(f"cannot be read: {error.strerror}")
    key = key_of(data, _names(), _interpreter(), asked.code)
    asked.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = asked.root / key
    lock = (asked.root / f"{key}.lock").open("a+")
    os.set_inheritable(lock.fileno(), inherit)
    _held.append(lock)
    deadline = time.monotonic() + asked.seconds
    _lock(lock, fcntl.LOCK_SH, deadline)
    while not (folder / _READY).is_file():
        _lock(lock, fcntl.LOCK_EX, deadline)
        if not (folder / _READY).is_file():
            _make(folder, data, asked, deadline)
        _lock(lock, fcntl.LOCK_SH, deadline)
    os.utime(folder)
    return folder / _PACKAGES


def installed() -> dict[str, str]:
    """The platform's packages: versions by canonical name."""
    found = importlib.metadata.distributions(path=_platform_path())
    named = [(one.metadata["Name"], one.version) for one in found]
    return {canonicalize_name(name): version for name, version in named if name and version}


def _names() -> list[str]:
    """The same, fast: the names of their metadata folders."""
    return [
        entry.name
        for folder in _platform_path()
        for entry in os.scandir(folder)
        if entry.name.endswith((".dist-info", ".egg-info"))
    ]


def _platform_path() -> list[str]:
    ends = ("site-packages", "dist-packages")
    return [entry for entry in sys.path if Path(entry).name in ends and Path(entry).is_dir()]


def _interpreter() -> str:
    return f"{sys.implementation.cache_tag} {platform.system()} {platform.machine()}"


def _make(folder: Path, data: bytes, asked: Wanted, deadline: float) -> None:
    """Install into a folder beside, then rename: the folder is whole or not there."""
    started = time.monotonic()
    lines, base = read(data), installed()
    check(lines, base)
    prune(asked.root, KEEP)
    log.info("installing %s", asked.file.name)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=asked.root) as name:
        new, report = Path(name) / "new", Path(name) / "report.json"
        held, exact = Path(name) / "constraints.txt", Path(name) / "resolved.txt"
        (new / _PACKAGES).mkdir(parents=True)
        held.write_text(constraints(base))
        where = asked.file.parent
        pip.resolve(asked.file, held, report, where, deadline - time.monotonic())
        text = resolved(json.loads(report.read_text()), lines, base)
        exact.write_text(text)
        pip.install(exact, new / _PACKAGES, where, deadline - time.monotonic())
        write_atomic(new / _READY, json.dumps({"resolved": text.splitlines()}).encode())
        os.sync()  # what is renamed now is trusted for ever
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    log.info("installed %s in %.1f s", asked.file.name, time.monotonic() - started)


def prune(root: Path, keep: int) -> None:
    """Drop the least recently used environments beyond ``keep``, but none in use."""
    drop_stale(root)
    found = [path for path in root.iterdir() if (path / _READY).is_file()]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[keep:]:
        with _unused(root / f"{path.name}.lock") as unused:
            if unused:
                log.info("dropping the environment %s", path.name)
                # Out of the way at once: what is half gone must not look whole.
                gone = path.rename(root / f".gone-{path.name}")
                shutil.rmtree(gone, ignore_errors=True)


@contextmanager
def _unused(path: Path) -> Iterator[bool]:
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def _lock(lock: IO[str], kind: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= deadline:
                msg = "the environment is still being installed by another job"
                raise WorkerError(msg, "the next attempt goes on from there") from None
            time.sleep(_POLL)
        else:
            return
