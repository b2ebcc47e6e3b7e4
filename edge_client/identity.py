"""A device's identity on disk: who it is, its key, and what it trusts."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from edge_client.errors import AlreadyEnrolledError, NotEnrolledError
from edge_client.files import fsync_folder, read_limited, write_atomic
from edge_client.settings import Home
from schemas.base import Wire
from schemas.enroll import BrokerAddress
from schemas.ids import DeviceId, Name

_RECORD = "identity.json"
_KEY, _CERTIFICATE, _CA = "key.pem", "certificate.pem", "ca.pem"
_ROOT, _TARGETS = "root.json", "targets.json"
_LIMIT = 4 * 1024**2


class IdentityRecord(Wire):
    """``identity.json``."""

    device: DeviceId
    device_class: Name
    broker: BrokerAddress
    heartbeat_seconds: float
    server: str


@dataclass(frozen=True, slots=True)
class Identity:
    """What a device is; the paths are those of its PEM files."""

    record: IdentityRecord
    key: Path
    certificate: Path
    ca: Path
    root_json: bytes
    targets_json: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewIdentity:
    """What enrollment yields, before it is on disk."""

    record: IdentityRecord
    key_pem: bytes
    certificate_pem: bytes
    ca_pem: bytes
    root_json: bytes
    targets_json: bytes


def is_enrolled(home: Home) -> bool:
    """Whether the home holds a whole identity."""
    return (home.identity / _RECORD).is_file()


def refuse_if_enrolled(home: Home) -> None:
    """Guard an identity against being replaced by mistake.

    Raises:
        AlreadyEnrolledError: there is one.
    """
    if is_enrolled(home):
        msg = f"{home.root} is enrolled already"
        raise AlreadyEnrolledError(msg, hint="use another --home, or --force to replace it")


def load_identity(home: Home) -> Identity:
    """Read the identity.

    Raises:
        NotEnrolledError: there is none, or it is damaged.
    """
    folder = home.identity
    try:
        record = IdentityRecord.model_validate_json(read_limited(folder / _RECORD, _LIMIT))
        return Identity(
            record=record,
            key=folder / _KEY,
            certificate=folder / _CERTIFICATE,
            ca=folder / _CA,
            root_json=read_limited(folder / _ROOT, _LIMIT),
            targets_json=read_limited(folder / _TARGETS, _LIMIT),
        )
    except FileNotFoundError as error:
        msg = f"{home.root} is not enrolled"
        hint = "run `argosy-edge enroll TOKEN --server URL` first"
        raise NotEnrolledError(msg, hint=hint) from error
    except (ValidationError, OSError) as error:
        msg = f"the identity in {folder} cannot be read: {str(error).splitlines()[0]}"
        hint = "enroll again with --force and a new join token"
        raise NotEnrolledError(msg, hint=hint) from error


def save_identity(home: Home, new: NewIdentity) -> None:
    """Write an identity so that it is there whole or not at all.

    The folder is filled beside its place and renamed into it; the record by which an
    identity is recognized therefore never exists without the rest. An older identity
    is moved aside first and removed last.
    """
    home.create()
    draft = Path(tempfile.mkdtemp(prefix=".identity-", dir=home.root))
    try:
        contents = {
            _KEY: new.key_pem,
            _CERTIFICATE: new.certificate_pem,
            _CA: new.ca_pem,
            _ROOT: new.root_json,
            _TARGETS: new.targets_json,
            _RECORD: new.record.model_dump_json(indent=1).encode(),
        }
        for name, data in contents.items():
            write_atomic(draft / name, data, mode=0o600)
        old = draft.with_name(draft.name + ".old")
        if home.identity.exists():
            os.replace(home.identity, old)  # noqa: PTH105 - a folder onto a free name
        os.replace(draft, home.identity)  # noqa: PTH105 - likewise
        fsync_folder(home.root)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
