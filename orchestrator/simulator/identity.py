"""The identities of simulated devices, and what each did last, kept in a folder.

One file for each device, which OpenSSL reads as it is: PEM readers skip what stands before a block
(RFC 7468, section 2), and there stands a line of JSON.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from cryptography import x509
from pydantic import Field, ValidationError

from orchestrator.errors import Invalid
from schemas.base import Wire
from schemas.device import ActiveModels, ExecutionSeen
from schemas.enroll import BrokerAddress

STATE = "state.json"
ROOTS = "roots.pem"
LOCK = "lock"


class Record(Wire):
    """The line of JSON before a device's key. server: the platform that let it in."""

    number: int
    device: str
    device_class: str
    serial: str
    server: str
    broker: BrokerAddress
    heartbeat_seconds: float
    expires: datetime


class Kept(Wire):
    """What a run leaves to the next: the device's journal, in short."""

    floor: int = 0
    active: ActiveModels = ()
    execution: ExecutionSeen | None = None


class State(Wire):
    """The journals of all devices, by their ids."""

    devices: dict[str, Kept] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a device is. path: the file with its key and certificates."""

    number: int
    device: str
    device_class: str
    serial: str
    broker: BrokerAddress
    heartbeat_seconds: float
    path: Path


class Folder:
    """A folder of identities.

    Args:
        root: made when it is not there, for its owner alone.

    Raises:
        Invalid: it cannot be made, or another run uses it: a broker knows each device once, so two
            runs with the same identities would take the connections from each other.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            detail = f"the folder {root} cannot be made: {(error.strerror or str(error)).lower()}"
            raise Invalid(detail, hint="name another one with --state") from error
        self._lock = _locked(root)
        self._before: Mapping[str, Kept] | None = None

    def close(self) -> None:
        """Let others use the folder."""
        self._lock.close()

    def save(self, record: Record, key_pem: bytes, chain_pem: str, roots_pem: str) -> None:
        """Keep an identity; what is there of that number is replaced."""
        _write(self.root / ROOTS, roots_pem.encode())
        head = record.model_dump_json().encode() + b"\n"
        _write(self.root / _name(record.number), head + key_pem + chain_pem.encode())

    def load(self, server: str, now: datetime, count: int) -> dict[int, Identity]:
        """The identities below ``count`` that a server gave and that have not expired."""
        found = {}
        for number in range(count):
            path = self.root / _name(number)
            record = _record(path)
            if record is not None and record.server == server and record.expires > now:
                found[number] = Identity(
                    number=number,
                    device=record.device,
                    device_class=record.device_class,
                    serial=record.serial,
                    broker=record.broker,
                    heartbeat_seconds=record.heartbeat_seconds,
                    path=path,
                )
        return found

    @property
    def roots(self) -> bytes:
        """The authorities to trust, as PEM.

        Raises:
            Invalid: they are gone.
        """
        try:
            return (self.root / ROOTS).read_bytes()
        except OSError as error:
            detail = f"{self.root / ROOTS} cannot be read, which says whom devices trust"
            raise Invalid(detail, hint="name another folder with --state, or delete it") from error

    def state(self) -> Mapping[str, Kept]:
        """What runs before left; nothing where they left nothing, or it is damaged."""
        try:
            return State.model_validate_json((self.root / STATE).read_bytes()).devices
        except (OSError, ValidationError):
            return {}

    def keep(self, devices: Mapping[str, Kept]) -> None:
        """Write down what the next run is to know, of a smaller fleet than the last one's too."""
        if self._before is None:
            self._before = self.state()
        text = State(devices={**self._before, **devices}).model_dump_json(exclude_defaults=True)
        _write(self.root / STATE, text.encode())


def _locked(root: Path) -> IO[bytes]:
    """The lock of a folder; it goes with the process, however that ends."""
    file = (root / LOCK).open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        detail = f"another run simulates the devices of {root}"
        hint = "wait for its end, or name another folder with --state"
        raise Invalid(detail, hint=hint) from error
    return file


def serial_and_end(chain_pem: str) -> tuple[str, datetime]:
    """Of the first certificate: its serial in hex, and when it expires.

    Raises:
        ValueError: there is no certificate.
    """
    leaf = x509.load_pem_x509_certificate(chain_pem.encode())
    return f"{leaf.serial_number:x}", leaf.not_valid_after_utc.astimezone(UTC)


def _name(number: int) -> str:
    return f"{number:06d}.pem"


def _record(path: Path) -> Record | None:
    try:
        with path.open("rb") as file:
            return Record.model_validate(json.loads(file.readline(4096)))
    except (OSError, ValueError):
        return None


def _write(path: Path, data: bytes) -> None:
    """All or nothing; only its owner reads it."""
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
