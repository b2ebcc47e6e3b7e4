"""How a join token is handed over: a line to copy, or a QR code of that line."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from pathlib import Path

from orchestrator.cli import console
from orchestrator.errors import Invalid

_TOO_WIDE = "the terminal has {width} columns, and the QR code needs {needed}"


def one_liner(token: str, server: str) -> str:
    """What is to be run on the device."""
    return f"argosy-edge enroll {token} --server {shlex.quote(server)}"


def show_qr(text: str) -> None:
    """Draw a QR code on stderr, so that stdout keeps the token alone.

    It holds the whole line, which a device's operator scans and pastes: a token by itself
    would leave the address to be typed.
    """
    import segno

    code = segno.make(text, error="l", micro=False)
    needed = code.symbol_size()[0]
    if sys.stderr.isatty() and console.err().width < needed:
        words = _TOO_WIDE.format(width=console.err().width, needed=needed)
        console.say(f"{words}: make the window wider, or use --qr-png FILE", style="yellow")
        return
    code.terminal(sys.stderr, compact=True)


def write_qr(text: str, file: Path) -> None:
    """Write a QR code as a PNG that its owner alone can read: it holds a secret.

    Raises:
        Invalid: the file is there already, or cannot be written.
    """
    import segno

    code = segno.make(text, error="l", micro=False)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        msg = f"--qr-png: {file} is there already"
        raise Invalid(msg, hint="name a file that is not there yet") from error
    except OSError as error:
        raise _unwritten(file, error) from error
    try:
        with os.fdopen(descriptor, "wb") as out:
            code.save(out, kind="png", scale=6)
    except OSError as error:
        with contextlib.suppress(OSError):
            file.unlink()
        raise _unwritten(file, error) from error


def _unwritten(file: Path, error: OSError) -> Invalid:
    return Invalid(f"--qr-png: {file} cannot be written: {error.strerror or error}")


def read_keys(given: tuple[str, ...]) -> tuple[str, ...]:
    """Digests from the command line: each in hex, or ``@FILE`` with one on each line.

    Empty lines and what follows a ``#`` are left out.

    Raises:
        Invalid: a file cannot be read.
    """
    found: list[str] = []
    for one in given:
        if not one.startswith("@"):
            found.append(one.strip().lower())
            continue
        try:
            lines = Path(one[1:]).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            msg = f"--key: {one[1:]} cannot be read: {why}"
            raise Invalid(msg) from error
        texts = (line.partition("#")[0].strip().lower() for line in lines)
        found += [text for text in texts if text]
    return tuple(found)
