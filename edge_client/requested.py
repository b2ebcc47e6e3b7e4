"""A key and the request for its certificate, on disk until the certificate is there.

An answer may be lost, and a device may be killed while it waits. Asking again with the same
key is the same request to the server; so the key is kept before it is used.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from edge_client import certificates
from edge_client.errors import EdgeError
from edge_client.files import disk_errors, fsync_folder, read_limited, write_atomic
from schemas.base import UtcTime, Wire
from schemas.enroll import Csr
from schemas.ids import DeviceId, Sha256, TokenId

_KEY, _NOTE = "key.pem", "request.json"
_LIMIT = 64 * 1024


class Note(Wire):
    """``request.json``. began: when the key was made."""

    csr_pem: Csr
    began: UtcTime


class EnrollmentNote(Note):
    """Of an enrollment. device, fingerprint: once the server has said that it waits.

    token_sha256: of the whole join token, so that its secret is not kept.
    """

    token: TokenId
    token_sha256: Sha256
    server: str
    device: DeviceId | None = None
    fingerprint: str | None = None


_N = TypeVar("_N", bound=Note)


def keep(folder: Path, key: ec.EllipticCurvePrivateKey, note: Note) -> None:
    """Write a key with its note, both or neither; what was there goes.

    Raises:
        DiskFullError: there is no room.
    """
    forget(folder)
    draft = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    try:
        with disk_errors(f"a new key in {folder}"):
            draft.mkdir(mode=0o700)
            write_atomic(draft / _KEY, certificates.key_pem(key), mode=0o600)
            write_atomic(draft / _NOTE, note.model_dump_json(indent=1).encode(), mode=0o600)
            os.replace(draft, folder)  # noqa: PTH105 - a folder onto a free name
            fsync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def amend(folder: Path, note: Note) -> None:
    """Replace the note of a key that is kept."""
    with disk_errors(f"what is known of the key in {folder}"):
        write_atomic(folder / _NOTE, note.model_dump_json(indent=1).encode(), mode=0o600)


def kept(folder: Path, kind: type[_N]) -> tuple[ec.EllipticCurvePrivateKey, _N] | None:
    """The key that is kept, with its note; None when there is none, or it is damaged."""
    note = kept_note(folder, kind)
    try:
        pem = read_limited(folder / _KEY, _LIMIT)
        key = certificates.read_key(pem, "the key that is kept")
    except (OSError, EdgeError):
        return None
    return None if note is None else (key, note)


def kept_note(folder: Path, kind: type[_N]) -> _N | None:
    """The note alone."""
    try:
        return kind.model_validate_json(read_limited(folder / _NOTE, _LIMIT))
    except (OSError, EdgeError, ValidationError):
        return None


def forget(folder: Path) -> None:
    """Remove a key that is not needed any more, and drafts that a kill left behind.

    Renamed first: half a folder is never taken for a whole one. A disk that will not have
    it leaves the folder; whoever reads it sees by the key that it is over.
    """
    gone = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    with contextlib.suppress(OSError):
        os.replace(folder, gone)  # noqa: PTH105 - likewise
    for leftover in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
