"""Sockets of the local server, taken without a moment in which others could use them."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_client.errors import ServeError
from edge_client.server.addresses import Address, TcpAddress, UnixAddress

BACKLOG = 128


@contextlib.contextmanager
def listening(address: Address) -> Iterator[socket.socket]:
    """A socket that listens; that of a path is removed at the end.

    Raises:
        ServeError: the address cannot be taken.
    """
    if isinstance(address, TcpAddress):
        with _tcp(address) as sock:
            yield sock
        return
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        stack.enter_context(taken_path(address, lambda path: _bind(sock, path)))
        yield sock


def bound(address: Address, sock: socket.socket) -> Address:
    """The address, with the port that the system chose."""
    if isinstance(address, UnixAddress):
        return address
    return TcpAddress(address.host, int(sock.getsockname()[1]))


@contextlib.contextmanager
def taken_path(address: UnixAddress, bind: Callable[[str], object]) -> Iterator[None]:
    """Have ``bind(path)`` listen on a name of its own; set the mode; then give it the real name.

    So nobody connects before the mode is set, and the socket of a server that died is replaced
    in one step. At the end the name goes, unless it is another server's by then.

    Raises:
        ServeError: another server listens there, or something that is no socket lies there.
    """
    path = Path(address.path)
    try:
        _refuse_taken(path)
        early = path.with_name(f"{path.name}.{os.getpid()}")
        early.unlink(missing_ok=True)
        bind(str(early))
        early.chmod(address.mode)
        early.rename(path)
        mine = path.stat().st_ino
    except OSError as error:
        hint = "make its folder first" if isinstance(error, FileNotFoundError) else None
        msg = f"cannot listen on {address}: {error.strerror or error}"
        raise ServeError(msg, hint=hint) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if path.stat().st_ino == mine:
                path.unlink()


def _tcp(address: TcpAddress) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        hint = "choose another port" if error.errno == errno.EADDRINUSE else None
        msg = f"cannot listen on {address}: {error.strerror or error}"
        raise ServeError(msg, hint=hint) from error
    return sock


def _bind(sock: socket.socket, path: str) -> None:
    sock.bind(path)
    sock.listen(BACKLOG)


def _refuse_taken(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        msg = f"cannot listen on unix:{path}: a file that is no socket lies there"
        raise ServeError(msg)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return
        except OSError as error:
            msg = f"cannot listen on unix:{path}: {error}"
            raise ServeError(msg) from error
    msg = f"cannot listen on unix:{path}: another server answers there"
    raise ServeError(msg, hint="choose another path")
