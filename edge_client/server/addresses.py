"""Where the local server may listen: loopback or a unix socket, nowhere else.

There is no password on it, so that an address that other machines reach would give the models to
whoever is near.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import PurePosixPath

from edge_client.errors import UsageError

_HINT = "write 127.0.0.1:8000, [::1]:8000, localhost:8000 or unix:/path/to/socket"
_MAX_PATH = 100
"""``sun_path`` holds 107 bytes, and a socket is bound under a longer name at first."""

_MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A loopback address. port: 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        """As clients write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A unix socket. mode: its permissions; connecting needs the right to write.

    Only the agent's user may connect, or its group too where the address ends in ``?mode=0660``.
    """

    path: str
    mode: int = 0o600

    def __str__(self) -> str:
        """As it is given on the command line."""
        return f"unix:{self.path}"


Address = TcpAddress | UnixAddress


def parse_address(text: str) -> Address:
    """Read ``HOST:PORT`` or ``unix:/PATH[?mode=0660]``.

    Raises:
        UsageError: it is neither, or an address that other machines can reach.
    """
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:"), text)
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
        raise _wrong(text, "is not HOST:PORT")
    if host == "localhost":
        return TcpAddress("127.0.0.1", int(port))
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        loopback = ipaddress.ip_address(bare).is_loopback
    except ValueError:
        raise _wrong(text, "names no IP address") from None
    if not loopback:
        raise _wrong(text, "can be reached by other machines, and the server asks for no password")
    return TcpAddress(bare, int(port))


def is_local(authority: str) -> bool:
    """Whether a ``Host`` field, or the host of an ``Origin``, is this machine by a loopback name.

    A page in a browser can have any name of its own point to 127.0.0.1 (DNS rebinding); its
    requests carry that name.
    """
    host = authority.strip().lower()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    if host in {"localhost", "127.0.0.1"}:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _unix(rest: str, text: str) -> UnixAddress:
    path, _, query = rest.partition("?")
    mode = 0o600
    if query:
        key, _, value = query.partition("=")
        if key != "mode" or value not in {"0600", "0660", "600", "660"}:
            raise _wrong(text, "may end in ?mode=0600 or ?mode=0660 only")
        mode = int(value, 8)
    if not PurePosixPath(path).is_absolute() or "\0" in path:
        raise _wrong(text, "needs an absolute path")
    if len(path.encode()) > _MAX_PATH:
        raise _wrong(text, f"has a path of more than {_MAX_PATH} bytes")
    return UnixAddress(path, mode)


def _wrong(text: str, why: str) -> UsageError:
    shown = text if text.isprintable() else ascii(text)
    return UsageError(f"the address {shown[:200]!r} {why}", hint=_HINT)
