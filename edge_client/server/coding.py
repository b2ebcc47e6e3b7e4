"""gzip and deflate, as ``Content-Encoding`` and ``Accept-Encoding`` name them (RFC 9110, 8.4)."""

from __future__ import annotations

import zlib

from edge_client.server.failures import Kind, RequestError, invalid

_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_SMALLEST = 512
_LEVEL = 1


def decoded(body: bytes, coding: bytes | None, limit: int) -> bytes:
    """The body itself, at most ``limit`` bytes of it.

    Raises:
        RequestError: the coding is not known, the data is damaged, or there is more of it.
    """
    if coding is None or coding == b"identity":
        return body
    name = coding.strip().lower()
    if name not in {b"gzip", b"deflate"}:
        msg = f"Content-Encoding {name.decode('latin-1')[:40]!r} is not known: use gzip or deflate"
        raise RequestError(Kind.MEDIA, msg)
    inflate = zlib.decompressobj(_GZIP if name == b"gzip" else _ZLIB)
    try:
        plain = inflate.decompress(body, limit + 1)
    except zlib.error as error:
        msg = f"the body is no {name.decode()}: {error}"
        raise invalid(msg) from error
    if len(plain) > limit:
        msg = f"a body is at most {limit} bytes, decompressed"
        raise RequestError(Kind.TOO_LARGE, msg)
    if not inflate.eof or inflate.unused_data:
        msg = f"the body is no whole {name.decode()}"
        raise invalid(msg)
    return plain


def wanted_coding(accept: bytes | None, size: int) -> bytes | None:
    """The coding for an answer, or None.

    Only where the client names one coding alone. Many libraries name all that they know by
    default, and between two processes of one machine compression costs more than it saves.
    """
    if accept is None or size < _SMALLEST:
        return None
    name = accept.strip().lower()
    return name if name in {b"gzip", b"deflate"} else None


def encoded(body: bytes, coding: bytes) -> bytes:
    """The body, compressed quickly."""
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP if coding == b"gzip" else _ZLIB)
    return deflate.compress(body) + deflate.flush()
