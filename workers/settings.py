"""Where the orchestrator is, and the token to speak to it with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from schemas.base import Authored
from workers.errors import UsageError

MAX_FILE = 64 * 1024


class Connection(Authored):
    """``HOME/worker.json``.

    ca: what to verify the server with, as the path of a PEM file or as PEM text; None:
    the system's certificates.
    """

    url: str
    token: str
    ca: str | None = None


def home_folder(home: str | None, env: Mapping[str, str]) -> Path:
    """``--home``, else ``$ARGOSY_HOME``, else ``~/.argosy``, made absolute."""
    return Path(home or env.get("ARGOSY_HOME") or "~/.argosy").expanduser().absolute()


def load_connection(home: Path, env: Mapping[str, str] | None = None) -> Connection:
    """The connection: ``ARGOSY_URL``, ``ARGOSY_TOKEN`` and ``ARGOSY_CA``, else the home's file.

    Raises:
        UsageError: neither is there, or the file is not what it should be.
    """
    env = os.environ if env is None else env
    if env.get("ARGOSY_URL") and env.get("ARGOSY_TOKEN"):
        return Connection(
            url=env["ARGOSY_URL"], token=env["ARGOSY_TOKEN"], ca=env.get("ARGOSY_CA") or None
        )
    path = home / "worker.json"
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE)
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise UsageError(msg, "start the platform first, or set ARGOSY_URL and ARGOSY_TOKEN") from (
            error
        )
    try:
        return Connection.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        msg = f"{path} is not valid: {where}: {first['msg']}"
        raise UsageError(msg, 'it must hold {"url", "token", "ca"}') from error
