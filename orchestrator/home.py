"""The home folder of a platform: where each thing lies, and how it is written."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import Conflict, Invalid, NotFound, Unavailable

MAX_RECORD_BYTES = 64 * 1024
_LOCK_WAIT = 0.5  # seconds; one who only looks whether a platform runs holds the lock briefly


@dataclass(frozen=True, slots=True)
class Credentials:
    """How a program on this machine reaches the API.

    ca: the path of the CA's certificate (PEM) that the API's certificate is checked
    with; None while the API speaks plain HTTP on loopback.
    """

    url: str
    token: str
    ca: str | None = None


@dataclass(frozen=True, slots=True)
class Up:
    """The running platform: the supervisor's process id and the API's address."""

    pid: int
    url: str


@dataclass(frozen=True, slots=True)
class Home:
    """Typed paths below the home folder (see docs/architecture.md)."""

    path: Path

    @property
    def database(self) -> Path:
        """The SQLite file, unless another database is set."""
        return self.path / "argosy.db"

    @property
    def artifacts(self) -> Path:
        """Content-addressed files."""
        return self.path / "artifacts"

    @property
    def patches(self) -> Path:
        """Where patches are made: files without names, gone with their process."""
        return self.path / "patches"

    @property
    def ca(self) -> Path:
        """The certificate authorities, the server's certificate and the revocation lists."""
        return self.path / "ca"

    @property
    def ca_pem(self) -> Path:
        """The roots to trust."""
        return self.ca / "ca.pem"

    @property
    def server_pem(self) -> Path:
        """The certificate of the API and of the broker's TLS listener."""
        return self.ca / "server.pem"

    @property
    def server_key(self) -> Path:
        """The key of ``server_pem``."""
        return self.ca / "server.key"

    @property
    def crl_pem(self) -> Path:
        """The certificates that were revoked."""
        return self.ca / "crl.pem"

    @property
    def trust(self) -> Path:
        """The TUF documents and their keys."""
        return self.path / "trust"

    @property
    def broker(self) -> Path:
        """The broker's configuration and data."""
        return self.path / "broker"

    @property
    def gateway_json(self) -> Path:
        """How the server reaches the broker."""
        return self.broker / "gateway.json"

    @property
    def broker_reload(self) -> Path:
        """Its change has the supervisor tell the broker to read its files anew."""
        return self.broker / "reload"

    @property
    def link_key(self) -> Path:
        """Signs links to files, unless the settings have the key."""
        return self.path / "link.key"

    @property
    def jobs(self) -> Path:
        """Checkpoints and exports, by job."""
        return self.path / "jobs"

    @property
    def prices_yaml(self) -> Path:
        """The price table, where there is one."""
        return self.path / "prices.yaml"

    @property
    def logs(self) -> Path:
        """The children's output."""
        return self.path / "logs"

    @property
    def credentials_json(self) -> Path:
        """What the CLI uses."""
        return self.path / "credentials.json"

    @property
    def worker_json(self) -> Path:
        """What the embedded agent uses."""
        return self.path / "worker.json"

    @property
    def up_json(self) -> Path:
        """Written while the platform runs."""
        return self.path / "up.json"

    @property
    def lock_file(self) -> Path:
        """Locked while the platform runs."""
        return self.path / "lock"

    def prepare(self) -> None:
        """Make every folder, readable by its owner alone.

        Raises:
            Unavailable: the folder cannot be made or written.
        """
        folders = (self.artifacts, self.ca, self.trust, self.broker, self.jobs, self.logs)
        for folder in (self.path, *folders):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                folder.chmod(0o700)
            except OSError as error:
                msg = f"cannot use {folder} as the home folder: {error.strerror}"
                hint = "name a folder that you can write, with --home or ARGOSY_HOME"
                raise Unavailable(msg, hint=hint) from error

    def write_credentials(self, credentials: Credentials) -> None:
        """Keep what the CLI uses."""
        write_json(self.credentials_json, asdict(credentials))

    def credentials(self) -> Credentials:
        """What the CLI uses.

        Raises:
            NotFound: there is none; the platform was never started here.
            Invalid: the file is damaged.
        """
        return _credentials(self.credentials_json)

    def write_worker(self, credentials: Credentials) -> None:
        """Keep what the embedded agent uses."""
        write_json(self.worker_json, asdict(credentials))

    def worker(self) -> Credentials:
        """What the embedded agent uses; raises as ``credentials`` does."""
        return _credentials(self.worker_json)

    def up(self) -> Up | None:
        """The platform that runs on this home now, or None."""
        if not self._locked():
            return None
        record = read_json(self.up_json)
        if record is None:
            return None
        try:
            return Up(int(record["pid"]), str(record["url"]))
        except (KeyError, TypeError, ValueError):
            return None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the home for one platform; the lock ends with the process, however it ends.

        Raises:
            Conflict: another platform runs on it; the message names its process.
        """
        with self.lock_file.open("a+b") as file:
            if not _try_lock(file.fileno()):
                file.seek(0)
                pid = file.read(32).decode(errors="replace").strip() or "unknown"
                msg = f"a platform runs on {self.path} already: process {pid}"
                raise Conflict(msg, hint=f"stop it (kill {pid}), or name another --home")
            self.lock_file.chmod(0o600)
            file.truncate(0)
            file.write(f"{os.getpid()}\n".encode())
            file.flush()
            try:
                yield
            finally:
                self.up_json.unlink(missing_ok=True)

    def write_up(self, up: Up) -> None:
        """Say that the platform runs; the end of the lock takes it back."""
        write_json(self.up_json, asdict(up))

    def _locked(self) -> bool:
        try:
            with self.lock_file.open("rb") as file:
                fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


def write_atomic(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file so that a reader, or a crash, sees the old bytes or the new ones.

    The bytes go to a new file in the same folder, which is synced, renamed over the
    old one, and the folder is synced.

    Args:
        path: the file; its folder exists.
        data: its whole content.
        mode: its permissions.

    Raises:
        OSError: it could not be written; the old file stands.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renames within a folder outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record atomically, for its owner alone (0600)."""
    write_atomic(path, (json.dumps(record, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a small record; None when it is missing, too large or not a JSON object."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_RECORD_BYTES + 1)
        record = json.loads(data) if len(data) <= MAX_RECORD_BYTES else None
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def read_lines(path: Path, limit: int) -> list[str]:
    """The lines of a file of ours, at most ``limit``; none when it is not there."""
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return [line.strip() for line, _ in zip(file, range(limit), strict=False)]
    except OSError:
        return []


def _try_lock(descriptor: int) -> bool:
    deadline = time.monotonic() + _LOCK_WAIT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def _credentials(path: Path) -> Credentials:
    if not path.exists():
        msg = f"{path} is not there: no platform was started on this home"
        raise NotFound(msg, hint="start one with: argosy up")
    record = read_json(path) or {}
    url, token, ca = record.get("url"), record.get("token"), record.get("ca")
    if not (isinstance(url, str) and isinstance(token, str) and isinstance(ca, str | None)):
        msg = f"{path} is damaged: it must hold url, token and ca"
        raise Invalid(msg, hint="remove it and run argosy up again")
    return Credentials(url, token, ca)
