"""Server-sent events: the wire format (WHATWG HTML, section 9.2), read incrementally."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_EVENT_CHARS = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """One event of a stream. id: None when the event carries none."""

    data: str
    id: str | None = None


@dataclass(slots=True)
class Parser:
    """Bytes in, whole messages out. Comments and heartbeats yield nothing.

    Raises:
        ValueError: an event is longer than ``MAX_EVENT_CHARS``.
    """

    _decode: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )
    _rest: str = ""
    _data: list[str] = field(default_factory=list)
    _id: str | None = None
    _size: int = 0

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """Take the next bytes of the stream; yield the messages they complete."""
        text = self._rest + self._decode.decode(chunk)
        *lines, self._rest = text.split("\n")
        for line in lines:
            message = self._line(line.removesuffix("\r"))
            if message is not None:
                yield message
        if self._size + len(self._rest) > MAX_EVENT_CHARS:
            msg = f"an event is longer than {MAX_EVENT_CHARS} characters"
            raise ValueError(msg)

    def _line(self, line: str) -> Message | None:
        if not line:
            message = Message("\n".join(self._data), self._id) if self._data else None
            self._data, self._id, self._size = [], None, 0
            return message
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._size += len(value)
            if self._size > MAX_EVENT_CHARS:
                msg = f"an event is longer than {MAX_EVENT_CHARS} characters"
                raise ValueError(msg)
        elif name == "id":
            self._id = value
        return None
