"""Where artifacts are kept, as ``ARGOSY_ARTIFACTS`` says it: a folder, or a bucket by URL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from orchestrator.errors import Invalid

CACHE_MB = 1024
MAX_CACHE_MB = 1024 * 1024

_FORM = "s3://bucket[/prefix][?endpoint=https://host[:port]&region=NAME&cache_mb=1024]"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_OPTIONS = frozenset({"endpoint", "region", "cache_mb"})
_MAX_PREFIX = 200


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, or a part of one, that belongs to this platform alone.

    prefix: without slashes at its ends; "" is the whole bucket. endpoint: of a service
    other than Amazon's. cache_bytes: of the local disk that hot files may take; 0: none.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    cache_bytes: int = CACHE_MB * 1024**2

    @property
    def name(self) -> str:
        """For people: the URL without its options."""
        return f"s3://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")


def parse(text: str, source: str) -> Path | Bucket:
    """Read the setting.

    Args:
        text: a folder's path, ``file:///path``, or a URL as in the module's ``_FORM``.
        source: the setting's name, for messages.

    Raises:
        Invalid: it is none of these, or holds a password: those come from the environment.
    """
    if not text or any(ord(c) < ord(" ") for c in text):
        raise _refused(source, "a place has a name, without control characters")
    if "://" not in text:
        return Path(text).expanduser().absolute()
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _refused(source, f"not a folder and not a URL of the form {_FORM}") from None
    if parts.scheme == "file" and not host and not parts.query and parts.path.strip("/"):
        return Path(unquote(parts.path)).absolute()
    if parts.scheme != "s3":
        # The text is not repeated: it may hold a password.
        raise _refused(source, f"not a folder and not a URL of the form {_FORM}")
    if "@" in parts.netloc:
        why = "a URL holds no keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead"
        raise _refused(source, why)
    if port is not None or parts.netloc != host or not _BUCKET.fullmatch(host):
        raise _refused(source, f"{parts.netloc[:80]!r} is not the name of a bucket")
    prefix = unquote(parts.path).strip("/")
    if prefix and (len(prefix) > _MAX_PREFIX or not _PREFIX.fullmatch(prefix)):
        raise _refused(source, f"{prefix[:80]!r} is not a prefix: letters, digits, . _ - and /")
    return _with_options(Bucket(host, prefix), parts.query, source)


def _with_options(place: Bucket, query: str, source: str) -> Bucket:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    unknown = sorted(set(options) - _OPTIONS)
    if unknown or len(options) != len(pairs):
        what = f"there is no option {unknown[0]!r}" if unknown else "an option repeats"
        raise _refused(source, f"{what}; the form is {_FORM}")
    region = options.get("region")
    if region is not None and not _REGION.fullmatch(region):
        raise _refused(source, f"{region[:80]!r} is not a region")
    endpoint = options.get("endpoint")
    if endpoint is not None:
        _check_endpoint(endpoint, source)
    cache = options.get("cache_mb", str(CACHE_MB))
    if not (cache.isascii() and cache.isdigit() and int(cache[:20]) <= MAX_CACHE_MB):
        why = f"cache_mb: {cache[:80]!r} is not a whole number of MiB (0 to {MAX_CACHE_MB})"
        raise _refused(source, why)
    return Bucket(place.bucket, place.prefix, endpoint, region, int(cache) * 1024**2)


def _check_endpoint(text: str, source: str) -> None:
    try:
        parts = urlsplit(text)
        plain = not parts.query and not parts.fragment and parts.path in {"", "/"}
        ok = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        ok = plain = False
    if not (ok and plain) or "@" in parts.netloc:
        raise _refused(source, "endpoint: not a URL of the form http(s)://host[:port]")


def _refused(source: str, why: str) -> Invalid:
    return Invalid(f"{source}: {why}")
