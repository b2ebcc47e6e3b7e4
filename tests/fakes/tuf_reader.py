"""A device's side of the trust metadata, as python-tuf's own client has it."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from schemas.trust import manifest_target


class NamedFetcher(FetcherInterface):
    """Gets files by their names; counts the bytes."""

    def __init__(self, read: Callable[[str], bytes | None]) -> None:
        self.read = read
        self.bytes = 0
        self.names: list[str] = []

    def _fetch(self, url: str):
        name = url.rpartition("/")[2]
        raw = self.read(name)
        if raw is None:
            raise DownloadHTTPError(name, 404)
        self.bytes += len(raw)
        self.names.append(name)
        return iter([raw])


class Reader:
    """A device that keeps its metadata between refreshes.

    Args:
        root: the root that it pinned.
        read: gets a metadata file by its name.
        clock: the time.
    """

    def __init__(self, root: bytes, read: Callable[[str], bytes | None], clock) -> None:
        self.root, self.clock = root, clock
        self.fetcher = NamedFetcher(read)
        self._folder = tempfile.TemporaryDirectory(prefix="tuf-reader-")
        self.path = Path(self._folder.name)

    def refresh(self) -> Updater:
        """One round, as at each desired document. Raises what python-tuf raises."""
        self.fetcher.bytes, self.fetcher.names = 0, []
        updater = Updater(str(self.path), "x://m/", fetcher=self.fetcher, bootstrap=self.root)
        updater._trusted_set.reference_time = self.clock()
        updater.refresh()
        return updater

    def find(self, *versions: tuple[str, int]) -> list[TargetFile | None]:
        """What it finds of some versions, in one round."""
        updater = self.refresh()
        return [updater.get_targetinfo(manifest_target(*one)) for one in versions]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._folder.cleanup()


def sha256_of(model: str, version: int) -> str:
    """The hash of a made-up manifest."""
    return hashlib.sha256(f"{model}@{version}".encode()).hexdigest()
