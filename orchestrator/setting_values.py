"""Values of settings, read from text; ``source`` names the setting where it is ``Invalid``."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.artifact_url import parse
from orchestrator.errors import Invalid

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_MAX_PORT = 65535
_MAX_DAYS = 3650
_MIN_RATE = 64 * 1024


def home(text: str, source: str) -> Path:
    """A folder, made absolute."""
    if not text or any(ord(c) < ord(" ") for c in text):
        msg = f"{source}: a home folder has a name, without control characters"
        raise Invalid(msg)
    return Path(text).expanduser().absolute()


def file(text: str, source: str) -> Path:
    """A file's path, made absolute."""
    if any(ord(c) < ord(" ") for c in text):
        msg = f"{source}: a file's name has no control characters"
        raise Invalid(msg)
    return Path(text).expanduser().absolute()


def artifacts(text: str, source: str) -> str:
    """Where artifacts are kept: a folder, made absolute, or the URL of a bucket."""
    place = parse(text, source)
    # A path is made absolute here: the children that read it run elsewhere.
    return str(place) if isinstance(place, Path) else text


def host(text: str, source: str) -> str:
    """A host name or an address."""
    if not text or any(c.isspace() or c in "/@?#" for c in text):
        msg = f"{source}: {text!r} is not a host name or an address"
        raise Invalid(msg)
    return text


def port(text: str, source: str) -> int:
    """1 to 65535."""
    value = integer(text, source)
    if value > _MAX_PORT:
        msg = f"{source}: {text} is not a port (1 to {_MAX_PORT})"
        raise Invalid(msg)
    return value


def integer(text: str, source: str) -> int:
    """A whole number of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text[:20]) == 0:
        msg = f"{source}: {text!r} is not a whole number of at least 1"
        raise Invalid(msg)
    return int(text[:20])


def count(text: str, source: str) -> int:
    """A whole number; 0 is allowed."""
    return 0 if text == "0" else integer(text, source)


def rate(text: str, source: str) -> int:
    """Bytes a second, at least one chunk."""
    value = integer(text, source)
    if value < _MIN_RATE:
        msg = f"{source}: {text} is less than a chunk a second ({_MIN_RATE} bytes)"
        raise Invalid(msg)
    return value


def days(text: str, source: str) -> int:
    """1 to 3650."""
    value = integer(text, source)
    if value > _MAX_DAYS:
        msg = f"{source}: {text} is not a number of days (1 to {_MAX_DAYS})"
        raise Invalid(msg)
    return value


def seconds(text: str, source: str) -> float:
    """0.01 to 30 days."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 30 * 86400:  # noqa: PLR2004 - said in the message, a NaN fails too
        msg = f"{source}: {text!r} is not a number of seconds (0.01 to 2592000)"
        raise Invalid(msg)
    return value


def proxies(text: str, source: str) -> str:
    """Addresses and networks, with commas between them."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    for part in found:
        try:
            ipaddress.ip_network(part)
        except ValueError:
            msg = f"{source}: {part!r} is neither an address nor a network, such as 10.0.0.0/8"
            raise Invalid(msg) from None
    return ",".join(found)


def key(text: str, source: str) -> str:
    """32 bytes in hex."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        # The text is not repeated: it may be most of a key.
        msg = f"{source}: not 64 hex digits"
        raise Invalid(msg, hint="make one with: openssl rand -hex 32")
    return text.lower()


def boolean(text: str, source: str) -> bool:
    """True or false, in the words that people use."""
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    msg = f"{source}: {text!r} is neither true nor false"
    raise Invalid(msg)


def url(*schemes: str) -> Callable[[str, str], str]:
    """Read a URL with one of these schemes, without the slash at its end."""

    def read(text: str, source: str) -> str:
        try:
            parts = urlsplit(text)
            ok = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        except ValueError:
            ok = False
        if not ok:
            # The text is not repeated: it may hold a password.
            msg = f"{source}: not a URL of the form {' or '.join(schemes)}://host[:port]"
            raise Invalid(msg)
        return text.rstrip("/")

    return read


def database(text: str, source: str) -> str:
    """A database as SQLAlchemy names it."""
    if "://" not in text:
        msg = f"{source}: not a database URL, such as postgresql+psycopg://user@host/argosy"
        raise Invalid(msg)
    return text
