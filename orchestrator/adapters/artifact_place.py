"""The artifact store that the settings name."""

from __future__ import annotations

import errno
import importlib.util
import os
from pathlib import Path
from typing import Protocol

from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.artifact_url import Bucket
from orchestrator.errors import Unavailable
from orchestrator.home import Home
from orchestrator.services.ports import Artifacts, ArtifactShelf
from orchestrator.services.uploads import Store
from orchestrator.settings import Settings


class AnyStore(Artifacts, ArtifactShelf, Store, Protocol):
    """Whatever keeps artifacts."""


def open_artifacts(settings: Settings, scratch: Path | None = None) -> AnyStore:
    """The store; a bucket is not spoken to yet.

    Args:
        settings: name the place.
        scratch: this process's own folder for the cache of a bucket; by default the server's.

    Raises:
        Unavailable: its folder cannot be made, or its client is not installed.
    """
    home = Home(settings.home)
    place = settings.artifact_place or home.artifacts
    if isinstance(place, Bucket):
        _check_installed(place)
        from orchestrator.adapters.artifacts_s3 import S3ArtifactStore  # noqa: PLC0415 - an extra

        return S3ArtifactStore(place, scratch or home.artifacts / "s3")
    try:
        return ArtifactStore(place)
    except OSError as error:
        raise _unusable(place, error) from error


def check_artifacts(settings: Settings) -> str:
    """See that artifacts can be kept there; answers the place, for people.

    Touches nothing that a running platform uses.

    Raises:
        Unavailable: they cannot be kept; the message says why.
    """
    place = settings.artifact_place or Home(settings.home).artifacts
    if isinstance(place, Bucket):
        _check_installed(place)
        from orchestrator.adapters.s3_client import S3Client  # noqa: PLC0415 - an extra

        S3Client(place, patient=False).probe()
        return place.name
    existing = next((p for p in (place, *place.parents) if p.exists()), Path("/"))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise _unusable(place, OSError(errno.EACCES, f"{existing} cannot be written"))
    return str(place)


def _check_installed(place: Bucket) -> None:
    if importlib.util.find_spec("boto3") is None:
        msg = f"artifacts in {place.name} need boto3, which is not installed"
        raise Unavailable(msg, hint="pip install 'argosy[s3]'")


def _unusable(place: Path, error: OSError) -> Unavailable:
    msg = f"artifacts cannot be kept in {place}: {error.strerror}"
    return Unavailable(msg, hint="name a folder that can be written in ARGOSY_ARTIFACTS")
