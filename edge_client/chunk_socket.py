"""A TLS socket that takes chunks out of the stream before the MQTT library sees them.

A chunk is 64 KiB, and the library reads a message in pieces, joins them, and unpacks them with
three copies and an object for properties that are not there: more time than decryption, SHA-256
and writing together. Here a chunk is read from a buffer that is used again and again, and handed
over as a view of it; whatever else comes is left to the library, byte by byte as it was. What is
taken is an MQTT 5 PUBLISH of QoS 0 (OASIS MQTT 5.0, 3.3) on one of the topics of a ``Tap``.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

BUFFER_BYTES = 256 * 1024
MOST_READS = 16
"""Reads in a row before the library may write: about four chunks."""

_PUBLISH = 0x30
_TYPE_AND_QOS = 0xF6
_LENGTH_BYTES = 4
_LEAST = 3  # of a PUBLISH: the lengths of topic and properties


class Tap:
    """What to take, and who takes it. Topics may change at any time."""

    def __init__(self, take: Callable[[str, memoryview], None]) -> None:
        """Begin with no topics.

        Args:
            take: given topic and payload in the network thread; the view holds until it returns.
        """
        self.take = take
        self._topics: dict[bytes, str] = {}

    def listen(self, topics: set[str]) -> None:
        """Take what comes on these topics from now on."""
        self._topics = {topic.encode(): topic for topic in topics}

    def named(self, topic: bytes) -> str | None:
        """The topic, if it is one of those."""
        return self._topics.get(topic)


class ChunkSocket(ssl.SSLSocket):
    """``recv`` gives everything but chunks; made by a context (``tapped``).

    It is for a socket that does not block: where nothing but chunks has come, it says that it
    wants to read, as TLS does.
    """

    tap: Tap
    _buffer: memoryview | None = None
    _start = 0
    _end = 0
    _left = 0  # bytes of a message that is the library's

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """What the library may have; at most ``buflen`` bytes, empty at the end."""
        if self.gettimeout() != 0 or flags:
            return super().recv(buflen, flags)  # the handshake of a proxy, before MQTT
        for _ in range(MOST_READS):
            if (theirs := self._sift()) is not None:
                return self._give(min(buflen, theirs))
            if not self._fill():
                return b""
        if (theirs := self._sift()) is not None:
            return self._give(min(buflen, theirs))
        raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "only chunks came")

    def pending(self) -> int:
        """Bytes that can be had without waiting for the network."""
        return min(self._left, self._end - self._start) + super().pending()

    def _sift(self) -> int | None:
        """Hand over the chunks that are whole; bytes of the library's, None to read more."""
        while not self._left:
            head = self._head()
            if head is None:
                return None
            first, body, size = head
            topic = self._topic(first, body, size)
            if topic is None:
                self._left = body - self._start + size
            elif self._end - body < size:
                return None
            else:
                self._hand_over(topic, body, size)
                self._start = body + size
        there = min(self._left, self._end - self._start)
        return there or None

    def _head(self) -> tuple[int, int, int] | None:
        """(first byte, where the rest begins, its length) of the next message."""
        buffer, start = self._buffer, self._start
        if buffer is None or self._end - start < 2:  # noqa: PLR2004 - type and length
            return None
        size, shift = 0, 0
        for at in range(start + 1, min(start + 1 + _LENGTH_BYTES, self._end)):
            byte = buffer[at]
            size |= (byte & 127) << shift
            shift += 7
            if not byte & 128:
                return buffer[start], at + 1, size
        if self._end - start > _LENGTH_BYTES:
            return 0, self._end, 0  # malformed: the library says so
        return None

    def _topic(self, first: int, body: int, size: int) -> str | None:
        """The tapped topic of a message, as far as it can be one."""
        buffer = self._buffer
        room = BUFFER_BYTES // 2
        if buffer is None or first & _TYPE_AND_QOS != _PUBLISH or not _LEAST <= size <= room:
            return None
        if self._end - body < 2:  # noqa: PLR2004 - the topic's length
            return ""
        length = buffer[body] << 8 | buffer[body + 1]
        if length + 3 > size:
            return None
        if self._end - body < 2 + length:
            return ""
        return self.tap.named(bytes(buffer[body + 2 : body + 2 + length]))

    def _hand_over(self, topic: str, body: int, size: int) -> None:
        buffer = self._buffer
        assert buffer is not None  # noqa: S101 - a message was found in it
        length = buffer[body] << 8 | buffer[body + 1]
        at = body + 2 + length
        properties = buffer[at]
        if properties & 128:  # the broker adds none; who sends as many wants no chunk read
            return
        payload = buffer[at + 1 + properties : body + size]
        self.tap.take(topic, payload)

    def _give(self, count: int) -> bytes:
        assert self._buffer is not None  # noqa: S101 - there are bytes in it
        data = bytes(self._buffer[self._start : self._start + count])
        self._start += count
        self._left -= count
        return data

    def _fill(self) -> bool:
        """Read what has come; False at the end of the stream."""
        if self._buffer is None:
            self._buffer = memoryview(bytearray(BUFFER_BYTES))
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end > BUFFER_BYTES // 2:
            rest = self._end - self._start
            self._buffer[:rest] = self._buffer[self._start : self._end]
            self._start, self._end = 0, rest
        read = super().recv_into(self._buffer[self._end :])
        self._end += read
        return read > 0


def tapped(context: ssl.SSLContext, tap: Tap) -> ssl.SSLContext:
    """Have a context make sockets that hand chunks to ``tap``."""
    context.sslsocket_class = type("TappedSocket", (ChunkSocket,), {"tap": tap})
    return context
