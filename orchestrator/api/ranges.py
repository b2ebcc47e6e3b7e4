"""One range of bytes out of a file (RFC 9110, section 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE = re.compile(r"bytes[ \t]*=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.IGNORECASE)


class UnsatisfiableError(ValueError):
    """None of the bytes that were asked for is there. size: of the file."""

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes from ``start`` up to, not with, ``end``."""

    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.start}-{self.end - 1}"


@dataclass(frozen=True, slots=True)
class Part:
    """An answer: bytes from ``start`` up to, not with, ``end``, its status and its headers."""

    start: int
    end: int
    status: int
    headers: dict[str, str]


def part(wanted: str | None, if_range: str | None, sha256: str, size: int) -> Part:
    """What to answer a request for a file with; arguments as for ``asked``.

    Raises:
        UnsatisfiableError: as ``asked`` does.
    """
    headers = {"etag": f'"{sha256}"', "accept-ranges": "bytes"}
    span = asked(wanted, if_range, headers["etag"], size)
    if span is None:
        return Part(0, size, 200, headers | {"content-length": str(size)})
    headers |= {
        "content-length": str(span.end - span.start),
        "content-range": f"bytes {span}/{size}",
    }
    return Part(span.start, span.end, 206, headers)


def asked(wanted: str | None, if_range: str | None, tag: str, size: int) -> Span | None:
    """The part that a request wants; None: all of it.

    Several ranges, and what is no range of bytes, are answered with all of it, as the RFC
    allows; likewise a range on the condition that the file is another than it is.

    Args:
        wanted: the ``Range`` header.
        if_range: the ``If-Range`` header; only this file's own tag fulfils it.
        tag: the file's ``ETag``, a strong one.
        size: bytes of the file.

    Raises:
        UnsatisfiableError: it begins behind the end, or wants the last 0 bytes.
    """
    if wanted is None or (if_range is not None and if_range.strip() != tag):
        return None
    found = _ONE.fullmatch(wanted.strip())
    first, last = found.groups() if found else ("", "")
    if not first and not last:
        return None
    if not first:
        start, end = max(0, size - int(last)), size
    elif last and int(last) < int(first):
        return None
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    if start >= end:
        msg = f"the file has {size} bytes, and none of {wanted.strip()}"
        raise UnsatisfiableError(msg, size)
    return Span(start, end)
