"""Where the platform is and who asks: the CLI's and the SDK's credentials."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.client.errors import ProfileError

CREDENTIALS = "credentials.json"
MAX_CREDENTIALS_BYTES = 64 * 1024
_PEM = "-----BEGIN"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Profile:
    """A platform and the right to use it.

    url: its base address, without a path. token: an API token. ca: the certificate
    authority to trust, as PEM text or as the path of a PEM file; None trusts the
    system's.
    """

    url: str
    token: str = field(repr=False)
    ca: str | None = None

    @classmethod
    def load(cls, home: Path | None = None, env: Mapping[str, str] | None = None) -> Profile:
        """Read ``HOME/credentials.json``, then let the environment override it.

        ``ARGOSY_URL``, ``ARGOSY_TOKEN`` and ``ARGOSY_CA`` override its fields. A token
        from the file is never sent to another address than the file's own.

        Args:
            home: the home folder; ``$ARGOSY_HOME``, then ``~/.argosy``, when left out.
            env: the environment; the process's own when left out.

        Raises:
            ProfileError: there are no credentials, or they cannot be read.
        """
        env = os.environ if env is None else env
        folder = home or home_folder(env)
        url, token = env.get("ARGOSY_URL"), env.get("ARGOSY_TOKEN")
        if url and token:
            return cls(_checked_url(url), token, env.get("ARGOSY_CA"))
        stored = _read(folder / CREDENTIALS)
        if url and _checked_url(url) != stored.url:
            detail = f"ARGOSY_URL is {url}, but ARGOSY_TOKEN is not set"
            hint = f"the token in {folder / CREDENTIALS} belongs to {stored.url}; set ARGOSY_TOKEN"
            raise ProfileError(detail, hint=hint)
        return cls(stored.url, token or stored.token, env.get("ARGOSY_CA") or stored.ca)


def home_folder(env: Mapping[str, str] | None = None) -> Path:
    """``$ARGOSY_HOME``, else ``~/.argosy``."""
    named = (os.environ if env is None else env).get("ARGOSY_HOME")
    return Path(named).expanduser() if named else Path.home() / ".argosy"


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own."""
    host = urlsplit(url).hostname or ""
    return host in _LOOPBACK or host.startswith("127.")


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        detail = f"{url!r} is not the address of a platform"
        raise ProfileError(detail, hint="it looks like https://127.0.0.1:8420")
    if parts.scheme == "http" and not is_loopback(url):
        detail = f"{url} is not encrypted: a token is not sent over it"
        raise ProfileError(detail, hint="use https://")
    return url.rstrip("/")


def _read(path: Path) -> Profile:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CREDENTIALS_BYTES + 1)
    except FileNotFoundError:
        detail = f"no credentials at {path}"
        hint = "start a platform with `argosy up`, or set ARGOSY_URL and ARGOSY_TOKEN"
        raise ProfileError(detail, hint=hint) from None
    except OSError as error:
        detail = f"{path} cannot be read: {error.strerror}"
        raise ProfileError(detail, hint="it belongs to whoever ran `argosy up`") from error
    try:
        if len(raw) > MAX_CREDENTIALS_BYTES:
            raise ValueError  # noqa: TRY301 - one message for every way of being damaged
        values = json.loads(raw)
        url, token, ca = values["url"], values["token"], values.get("ca")
        if not (isinstance(url, str) and isinstance(token, str) and isinstance(ca, str | None)):
            raise TypeError  # noqa: TRY301 - likewise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        detail = f"{path} is damaged: it must hold url, token and ca"
        raise ProfileError(detail, hint="`argosy up` writes it anew") from error
    if ca and not ca.startswith(_PEM):
        ca = str(path.parent / ca)
    return Profile(_checked_url(url), token, ca or None)
