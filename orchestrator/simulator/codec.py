"""The part of MQTT 5 that a device speaks, as bytes (OASIS standard, 2019).

paho has a thread and half a megabyte per client, so ten thousand of them need another codec. Only
what ``docs/protocol.md`` uses is here: no topic aliases, no QoS 2, no enhanced authentication.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAX_PACKET = 1024**2
"""What is announced as the largest packet, which is what the platform's broker sends at most."""

CONNACK, PUBLISH, PUBACK, SUBACK, PINGRESP, DISCONNECT = 2, 3, 4, 9, 13, 14

PINGREQ_BYTES = b"\xc0\x00"
LEAVE_WITH_WILL = b"\xe0\x01\x04"
"""DISCONNECT with reason 0x04: the will is published."""

_SESSION_EXPIRY, _PACKET_SIZE, _MESSAGE_EXPIRY = 0x11, 0x27, 0x02
_WILL_QOS1 = 0x04 | 0x08
_MAX_LENGTH_BYTES = 4
_PAIR = struct.Struct(">H")


class CodecError(ValueError):
    """What came is not MQTT, or too long."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet as it came: its kind, the flags of its first byte, and what follows."""

    kind: int
    flags: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """A PUBLISH. pid: 0 with QoS 0."""

    topic: str
    payload: bytes
    qos: int
    pid: int


def connect(client_id: str, *, keepalive: int, expiry: int, will: tuple[str, bytes]) -> bytes:
    """CONNECT with the session kept, and a will of QoS 1.

    Args:
        client_id: the client's.
        keepalive: seconds.
        expiry: seconds for which the broker keeps the session.
        will: topic and payload.
    """
    properties = struct.pack(">BIBI", _SESSION_EXPIRY, expiry, _PACKET_SIZE, MAX_PACKET)
    head = _text("MQTT") + bytes([5, _WILL_QOS1]) + _PAIR.pack(keepalive)
    body = head + _length(len(properties)) + properties + _text(client_id)
    return _packet(0x10, body + b"\x00" + _text(will[0]) + _data(will[1]))


def subscribe(pid: int, filter_: str) -> bytes:
    """SUBSCRIBE to one filter, QoS 1."""
    return _packet(0x82, _PAIR.pack(pid) + b"\x00" + _text(filter_) + b"\x01")


def publish(
    topic: str,
    payload: bytes,
    *,
    pid: int = 0,
    retain: bool = False,
    expiry: int = 0,
    again: bool = False,
) -> bytes:
    """PUBLISH: QoS 1 with a packet id, else QoS 0.

    Args:
        topic: where to.
        payload: what.
        pid: the packet id; 0 for QoS 0.
        retain: keep it at the broker.
        expiry: seconds after which the broker drops it; 0 for never.
        again: it was sent before.
    """
    flags = 0x30 | (0x02 if pid else 0) | (0x01 if retain else 0) | (0x08 if again else 0)
    properties = struct.pack(">BI", _MESSAGE_EXPIRY, expiry) if expiry else b""
    ids = _PAIR.pack(pid) if pid else b""
    return _packet(flags, _text(topic) + ids + _length(len(properties)) + properties + payload)


def puback(pid: int) -> bytes:
    """PUBACK: it was taken."""
    return b"\x40\x02" + _PAIR.pack(pid)


def split(buffer: bytearray) -> list[Packet]:
    """Take the whole packets off the beginning of what came.

    Raises:
        CodecError: a length that is no length, or beyond ``MAX_PACKET``.
    """
    found: list[Packet] = []
    at, end = 0, len(buffer)
    while end - at >= 2:  # noqa: PLR2004 - the shortest packet
        read = _read_length(buffer, at + 1, end)
        if read is None:
            break
        length, start = read
        if length > MAX_PACKET:
            msg = f"a packet of {length} bytes"
            raise CodecError(msg)
        if start + length > end:
            break
        first = buffer[at]
        found.append(Packet(first >> 4, first & 15, bytes(buffer[start : start + length])))
        at = start + length
    del buffer[:at]
    return found


def message_of(packet: Packet) -> Message:
    """Read a PUBLISH.

    Raises:
        CodecError: it is cut short.
    """
    body, qos = packet.body, packet.flags >> 1 & 3
    try:
        (size,) = _PAIR.unpack_from(body)
        at = 2 + size
        topic = body[2:at].decode()
        pid = 0
        if qos:
            (pid,) = _PAIR.unpack_from(body, at)
            at += 2
        read = _read_length(body, at, len(body))
    except (struct.error, UnicodeDecodeError) as error:
        raise CodecError(str(error)) from error
    if read is None or at > len(body):
        msg = "a message that is cut short"
        raise CodecError(msg)
    return Message(topic, body[read[1] + read[0] :], qos, pid)


def reason_of(packet: Packet) -> int:
    """The reason code of a CONNACK or a DISCONNECT; 0 where none is said.

    Raises:
        CodecError: a CONNACK that is cut short.
    """
    if packet.kind == CONNACK:
        if len(packet.body) < 2:  # noqa: PLR2004 - flags and reason
            msg = "a CONNACK that is cut short"
            raise CodecError(msg)
        return packet.body[1]
    return packet.body[0] if packet.body else 0


def acked(packet: Packet) -> int:
    """The packet id of a PUBACK or SUBACK.

    Raises:
        CodecError: it is cut short.
    """
    try:
        return int(_PAIR.unpack_from(packet.body)[0])
    except struct.error as error:
        raise CodecError(str(error)) from error


def _packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + _length(len(body)) + body


def _text(text: str) -> bytes:
    return _data(text.encode())


def _data(data: bytes) -> bytes:
    return _PAIR.pack(len(data)) + data


def _length(value: int) -> bytes:
    """A variable byte integer (section 1.5.5)."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


def _read_length(data: bytes | bytearray, at: int, end: int) -> tuple[int, int] | None:
    """A variable byte integer and where it ends; None when it is not all there."""
    value = 0
    for place in range(_MAX_LENGTH_BYTES):
        if at + place >= end:
            return None
        byte = data[at + place]
        value |= (byte & 127) << (7 * place)
        if byte < 128:  # noqa: PLR2004 - the last byte has no continuation bit
            return value, at + place + 1
    msg = "a length of more than 4 bytes"
    raise CodecError(msg)
