"""The key that signs links to files: from the settings, or kept in the home."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from orchestrator.domain.link import KEY_BYTES
from orchestrator.errors import Unavailable
from orchestrator.home import sync_folder


def open_link_key(path: Path, given: str | None = None) -> bytes:
    """The 32 bytes; made, if there is no file yet, by whoever is first.

    Args:
        path: the file, of 64 hex digits, readable by its owner alone.
        given: the key in hex (``ARGOSY_LINK_KEY``), which counts before the file.

    Raises:
        Unavailable: the file is damaged, or cannot be made.
    """
    if given is not None:
        return bytes.fromhex(given)
    try:
        if not path.exists():
            _make(path)
        with path.open("rb") as file:
            text = file.read(2 * KEY_BYTES + 2)
        key = bytes.fromhex(text.decode("ascii").strip())
    except OSError as error:
        msg = f"cannot read or make {path}: {error.strerror}"
        raise Unavailable(msg, hint="its folder must be writable by the server") from error
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        msg = f"{path} is damaged: it must hold {2 * KEY_BYTES} hex digits"
        raise Unavailable(msg, hint="remove it: a new one is made, and links are asked for anew")
    return key


def _make(path: Path) -> None:
    """Write a new key, unless somebody else does; the file appears whole."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(KEY_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
