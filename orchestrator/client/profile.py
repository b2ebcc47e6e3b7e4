"""Where the platform is and who asks: the CLI's and the SDK's credentials."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.client.errors import Invalid, ProfileError
from orchestrator.client.profiles import Profiles

CREDENTIALS = "credentials.json"
MAX_CREDENTIALS_BYTES = 64 * 1024
_PEM = "-----BEGIN"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

CHOSEN: ContextVar[str | None] = ContextVar("argosy_profile", default=None)
"""The profile that the command line names with ``--profile``, for every connection it makes."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A platform and the right to use it.

    url: its base address, without a path. token: an API token. ca: the certificate
    authority to trust, as PEM text or as the path of a PEM file; None trusts the
    system's. source: where this was found.
    """

    url: str
    token: str = field(repr=False)
    ca: str | None = None
    source: str = field(default="", compare=False)

    @classmethod
    def load(
        cls,
        home: Path | None = None,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> Profile:
        """Find the credentials; the first of these that is there counts.

        1. ``name`` (``--profile``), a profile that ``argosy login`` keeps
        2. ``home`` (``--home``), a platform's folder
        3. ``ARGOSY_URL`` with ``ARGOSY_TOKEN`` (and ``ARGOSY_CA``)
        4. ``ARGOSY_PROFILE``
        5. ``ARGOSY_HOME``
        6. the profile in use (``argosy profile use``)
        7. ``~/.argosy``

        From 4 on ``ARGOSY_TOKEN`` and ``ARGOSY_CA`` override what is found. A token that
        is found is never sent to another address than the one it was kept with.

        Args:
            home: the home folder.
            env: the environment; the process's own when left out.
            name: the profile.

        Raises:
            Invalid: both are named.
            ProfileError: there are no credentials, or they cannot be read.
        """
        env = os.environ if env is None else env
        name = name or CHOSEN.get()
        if name and home:
            detail = "--profile and --home name two platforms"
            raise Invalid(detail, hint="say one of them")
        if name:
            return _kept(env, name)
        if home:
            return read(home / CREDENTIALS)
        url, token = env.get("ARGOSY_URL"), env.get("ARGOSY_TOKEN")
        if url and token:
            return cls(checked_url(url), token, env.get("ARGOSY_CA"), "ARGOSY_URL")
        found = _ambient(env)
        if url and checked_url(url) != found.url:
            detail = f"ARGOSY_URL is {url}, but ARGOSY_TOKEN is not set"
            hint = f"the token in {found.source} belongs to {found.url}; set ARGOSY_TOKEN"
            raise ProfileError(detail, hint=hint)
        return replace(found, token=token or found.token, ca=env.get("ARGOSY_CA") or found.ca)


def _ambient(env: Mapping[str, str]) -> Profile:
    if env.get("ARGOSY_PROFILE"):
        return _kept(env, env["ARGOSY_PROFILE"])
    in_use = None if env.get("ARGOSY_HOME") else Profiles.of(env).in_use()
    return _kept(env, in_use) if in_use else read(home_folder(env) / CREDENTIALS)


def _kept(env: Mapping[str, str], name: str) -> Profile:
    return read(Profiles.of(env).path(name))


def home_folder(env: Mapping[str, str] | None = None) -> Path:
    """``$ARGOSY_HOME``, else ``~/.argosy``."""
    named = (os.environ if env is None else env).get("ARGOSY_HOME")
    return Path(named).expanduser() if named else Path.home() / ".argosy"


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own."""
    host = urlsplit(url).hostname or ""
    return host in _LOOPBACK or host.startswith("127.")


def checked_url(url: str) -> str:
    """An address to which a token may be sent, without the slash at its end.

    Raises:
        ProfileError: it is none, or would carry the token in the clear.
    """
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


def read(path: Path) -> Profile:
    """The credentials in a file.

    Raises:
        ProfileError: it is not there, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CREDENTIALS_BYTES + 1)
    except FileNotFoundError:
        detail = f"no credentials at {path}"
        hint = "start a platform with `argosy up`, or sign in to one with `argosy login URL`"
        raise ProfileError(detail, hint=hint) from None
    except OSError as error:
        detail = f"{path} cannot be read: {error.strerror}"
        raise ProfileError(detail, hint="it belongs to whoever wrote it") from error
    try:
        if len(raw) > MAX_CREDENTIALS_BYTES:
            raise ValueError  # noqa: TRY301 - one message for every way of being damaged
        values = json.loads(raw)
        url, token, ca = values["url"], values["token"], values.get("ca")
        if not (isinstance(url, str) and isinstance(token, str) and isinstance(ca, str | None)):
            raise TypeError  # noqa: TRY301 - likewise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        detail = f"{path} is damaged: it must hold url, token and ca"
        hint = "`argosy up` and `argosy login` write it anew"
        raise ProfileError(detail, hint=hint) from error
    if ca and not ca.startswith(_PEM):
        ca = str(path.parent / ca)
    return Profile(checked_url(url), token, ca or None, str(path))
