"""Which provider runs how many nodes, from ONNX Runtime's profile of a run."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def count_nodes(events: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Nodes per execution provider in a profile; one that ran often counts once."""
    seen: set[tuple[str, str, str]] = set()
    for event in events:
        args = event.get("args", {})
        name, provider = str(event.get("name", "")), args.get("provider")
        if event.get("cat") == "Node" and name.endswith("_kernel_time") and provider:
            seen.add((str(provider), name, str(args.get("node_index", ""))))
    return dict(Counter(provider for provider, _, _ in seen))


class Profile:
    """The profile that a session writes from its beginning on, until its nodes are counted."""

    def __init__(self, options: Any, folder: Path | None = None) -> None:
        """Have it written by the session that is made with these options next.

        Args:
            options: of the session; changed.
            folder: where a folder of its own is made and removed; the system's own if left out.

        Raises:
            OSError: there is no room for it.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="argosy-profile-", dir=folder)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(self._folder.name, "profile"))

    def nodes(self, session: Any) -> dict[str, int]:
        """Nodes per provider in what ran so far, and the end of it; {} where nothing is known."""
        with self._folder, suppress(OSError, ValueError, RuntimeError):
            return count_nodes(json.loads(Path(session.end_profiling()).read_text()))
        return {}

    def drop(self) -> None:
        """There will be no session."""
        self._folder.cleanup()
