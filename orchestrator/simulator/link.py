"""One device's connection: mutual TLS and an MQTT 5 session, without a thread of its own.

asyncio's own TLS keeps 256 KiB for each connection; here the socket itself does it, and all
connections of the process share one buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.simulator import codec
from orchestrator.simulator.codec import CodecError, Message, Packet
from orchestrator.simulator.outbox import Outbox, Outgoing

KEEPALIVE = 20
SESSION_SECONDS = 7 * 86400
_SHARED = memoryview(bytearray(256 * 1024))
_REFUSALS = frozenset({0x85, 0x86, 0x87, 0x8A})


class Owner(Protocol):
    """Whom a connection belongs to."""

    def connected(self) -> None:
        """The session is there."""

    def heard(self, message: Message) -> None:
        """Something was published to it."""

    def lost(self, *, refused: bool) -> None:
        """The connection ended, or was not to be had."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where all devices connect, and what they trust."""

    address: tuple[str, int]
    family: socket.AddressFamily
    host: str
    tls: ssl.SSLContext


class Link:
    """A connection that its owner opens anew after it was lost.

    Args:
        loop: the event loop.
        broker: where to.
        device: the client id.
        pem: the file with its key and certificates.
        owner: is told what happens.
    """

    # fmt: off
    __slots__ = (
        "_broker", "_buffer", "_device", "_loop", "_out", "_outbox", "_owner", "_pem", "_reading",
        "_sock", "_will", "_writing", "up",
    )
    # fmt: on

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        broker: Broker,
        device: str,
        pem: Path,
        owner: Owner,
    ) -> None:
        self._loop, self._broker, self._device = loop, broker, device
        self._pem, self._owner = pem, owner
        self._sock: socket.socket | None = None
        self._buffer, self._out = bytearray(), bytearray()
        self._outbox = Outbox()
        self._will: tuple[str, bytes] = ("", b"")
        self._reading = self._writing = False
        self.up = False

    @property
    def pending(self) -> int:
        """Messages that the broker has not acknowledged."""
        return len(self._outbox)

    @property
    def closed(self) -> bool:
        """Whether it is neither there nor being made."""
        return self._sock is None

    def open(self, will: tuple[str, bytes]) -> None:
        """Connect. will: what the broker is to say when the device is gone."""
        self._will = will
        self._buffer.clear()
        self._out.clear()
        sock = socket.socket(self._broker.family, socket.SOCK_STREAM)
        sock.setblocking(False)  # noqa: FBT003 - the library's signature
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        code = sock.connect_ex(self._broker.address)
        if code not in {0, 115, 36, 11}:  # EINPROGRESS of Linux and macOS, EAGAIN
            self._loop.call_soon(self._drop)
            return
        self._watch(writing=self._opened)

    def close(self, *, leave: bool = False) -> None:
        """End the connection; the owner is not told. leave: say good-bye, with the will."""
        if self._sock is None:
            return
        if leave and self.up:
            self._send(codec.LEAVE_WITH_WILL)
        self._forget()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, expiry: int = 0) -> None:
        """Send with QoS 1, again on each connection until it is acknowledged."""
        one = Outgoing(topic, payload, retain, expiry)
        pid = self._outbox.put(one)
        if self.up and pid is not None:
            self._send(one.packet(pid))

    def tell(self, topic: str, payload: bytes) -> None:
        """Send with QoS 0; nothing when there is no connection."""
        if self.up:
            self._send(codec.publish(topic, payload))

    def ping(self) -> None:
        """Say that it is there."""
        if self.up:
            self._send(codec.PINGREQ_BYTES)

    def _opened(self) -> None:
        """The TCP connection is there, or not to be had."""
        sock = self._sock
        assert sock is not None  # noqa: S101 - it is watched only while it is there
        self._unwatch()
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._drop()
            return
        try:
            # OpenSSL copies the certificate when it wraps, so one context serves all devices.
            self._broker.tls.load_cert_chain(self._pem)
            self._sock = self._broker.tls.wrap_socket(
                sock, server_hostname=self._broker.host, do_handshake_on_connect=False
            )
        except OSError:
            self._drop()
            return
        self._shake()

    def _shake(self) -> None:
        """Go on with the TLS handshake."""
        sock = self._sock
        assert isinstance(sock, ssl.SSLSocket)  # noqa: S101 - made just before
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(reading=self._shake)
        except ssl.SSLWantWriteError:
            self._watch(writing=self._shake)
        except ssl.SSLError:
            self._drop(refused=True)
        except OSError:
            self._drop()
        else:
            self._unwatch()
            self._watch(reading=self._readable)
            self._send(
                codec.connect(
                    self._device, keepalive=KEEPALIVE, expiry=SESSION_SECONDS, will=self._will
                )
            )

    def _readable(self) -> None:
        try:
            if not self._receive():
                self._drop()
                return
            for packet in codec.split(self._buffer):
                self._take(packet)
        except ssl.SSLError:
            self._drop(refused=not self.up)
        except (OSError, CodecError):
            self._drop()

    def _receive(self) -> bool:
        """Read what is there; whether the connection is still there."""
        sock = self._sock
        assert isinstance(sock, ssl.SSLSocket)  # noqa: S101 - it is watched only while it is there
        try:
            while True:
                size = sock.recv_into(_SHARED)
                self._buffer += _SHARED[:size]
                if not size or not sock.pending():
                    return bool(size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True

    def _take(self, packet: Packet) -> None:
        if self._sock is None:
            return  # what came with the end of a connection comes again on the next
        if packet.kind == codec.PUBLISH:
            message = codec.message_of(packet)
            self._owner.heard(message)
            if message.pid and self.up:
                # Acknowledged once it was taken up; what follows of it is sent before.
                self._send(codec.puback(message.pid))
        elif packet.kind == codec.PUBACK:
            following = self._outbox.acknowledged(codec.acked(packet))
            if following is not None:
                self._send(following[1].packet(following[0]))
        elif packet.kind == codec.CONNACK:
            self._admitted(packet)
        elif packet.kind == codec.DISCONNECT:
            self._drop(refused=codec.reason_of(packet) in _REFUSALS)

    def _admitted(self, packet: Packet) -> None:
        reason = codec.reason_of(packet)
        if reason:
            self._drop(refused=reason in _REFUSALS)
            return
        present = bool(packet.body[0] & 1)
        self.up = True
        self._send(codec.subscribe(self._outbox.next_pid(), f"d/{self._device}/down/+"))
        for pid, one in self._outbox.unacknowledged():
            self._send(one.packet(pid, again=present))
        self._owner.connected()

    def _send(self, data: bytes) -> None:
        if self._out:
            self._out += data
            return
        sent = self._write(data)
        if sent < len(data):
            self._out += memoryview(data)[sent:]
            if self._sock is not None:
                self._loop.add_writer(self._sock.fileno(), self._writable)
                self._writing = True

    def _write(self, data: bytes | bytearray) -> int:
        if self._sock is None:
            return len(data)
        try:
            return self._sock.send(data)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0
        except OSError:
            # Reading will find the connection gone, and tell the owner.
            return len(data)

    def _writable(self) -> None:
        del self._out[: self._write(bytes(self._out))]
        if not self._out and self._sock is not None:
            self._loop.remove_writer(self._sock.fileno())
            self._writing = False

    def _watch(
        self,
        *,
        reading: Callable[[], None] | None = None,
        writing: Callable[[], None] | None = None,
    ) -> None:
        assert self._sock is not None  # noqa: S101 - nothing else is watched
        if reading is not None:
            self._loop.add_reader(self._sock.fileno(), reading)
            self._reading = True
        if writing is not None:
            self._loop.add_writer(self._sock.fileno(), writing)
            self._writing = True

    def _unwatch(self) -> None:
        if self._sock is not None and self._sock.fileno() >= 0:
            if self._reading:
                self._loop.remove_reader(self._sock.fileno())
            if self._writing:
                self._loop.remove_writer(self._sock.fileno())
        self._reading = self._writing = False

    def _forget(self) -> None:
        self._unwatch()
        self.up = False
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.close()
        self._sock = None

    def _drop(self, *, refused: bool = False) -> None:
        if self._sock is not None:
            self._forget()
            self._owner.lost(refused=refused)
