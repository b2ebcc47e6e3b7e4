"""What trials gave, kept by content in the job's folder: a killed search repeats none.

An entry is a folder whose name is a digest of everything that decides what is in it. It is
made beside its place and renamed, so that it is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from workers.files import drop_stale, write_atomic

FORMAT = 1
"""Part of every name: raised when what an entry holds changes its meaning."""

_KEY = 40


def key_of(kind: str, **parts: object) -> str:
    """The name of an entry. kind: of what it holds. parts: plain values that decide it."""
    text = json.dumps([FORMAT, kind, parts], sort_keys=True, default=str)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:_KEY]}"


class Cache:
    """Entries by name. folder: made when something is put there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> Path | None:
        """The folder of an entry, or None."""
        found = self.folder / key
        return found if found.is_dir() else None

    def put(self, key: str, files: Mapping[str, bytes]) -> Path:
        """Keep files under a name; what is there already stays. The entry's folder."""
        found = self.folder / key
        if found.is_dir():
            return found
        self.folder.mkdir(parents=True, exist_ok=True)
        drop_stale(self.folder)
        scratch = Path(tempfile.mkdtemp(dir=self.folder, prefix=".new-"))
        try:
            for name, data in files.items():
                write_atomic(scratch / name, data)
            try:
                scratch.rename(found)
            except OSError:
                if not found.is_dir():
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return found
