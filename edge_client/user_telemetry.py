"""Telemetry of a user's process: one recorder for each home, however many models it uses."""

from __future__ import annotations

import logging
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path

from edge_client.errors import EdgeError
from edge_client.meter import Meter, NoMeter
from edge_client.recorder import Recorder
from edge_client.settings import Home
from edge_client.telemetry import Windows

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Shared:
    windows: Windows
    recorder: Recorder | None
    users: int = 0


_lock = threading.Lock()
_shared: dict[Path, _Shared] = {}
_inherited: list[_Shared] = []


class UserTelemetry:
    """A share in the recorder of a home. meter: what a runtime tells of its inferences.

    Where the home cannot be written nothing is counted, which is said once in the log.
    """

    def __init__(self, home: Home, *, wanted: bool = True) -> None:
        """Take a share. wanted: False counts nothing."""
        self.meter: Meter = NoMeter()
        self._root: Path | None = None
        if not wanted:
            return
        root = home.root.absolute()
        with _lock:
            shared = _shared.get(root)
            if shared is None:
                shared = _shared[root] = _open(home)
            shared.users += 1
        self._root = root
        if shared.recorder is not None:
            self.meter = shared.windows

    def close(self) -> None:
        """Give the share back; the last one writes what was counted."""
        root, self._root = self._root, None
        if root is None:
            return
        with _lock:
            shared = _shared[root]
            shared.users -= 1
            if shared.users:
                return
            if shared.recorder is not None:
                del _shared[root]  # else it stays, so that it is not said again
        if shared.recorder is not None:
            shared.recorder.close()


def forked() -> None:
    """In a child of the process: nothing that was inherited is used any more."""
    global _lock  # noqa: PLW0603 - it may be held by a thread that is not there
    _lock = threading.Lock()
    for shared in _shared.values():
        # Let go of the file whose lock says that the parent lives. SQLite's, which was inherited
        # open, is kept and not touched: closing it would take the parent's locks away
        # (https://sqlite.org/howtocorrupt.html, section 2.6).
        shared.windows.forked()
        _inherited.append(shared)
    _shared.clear()


def _open(home: Home) -> _Shared:
    windows = Windows()
    try:
        recorder = Recorder(home, boot=secrets.token_hex(16), windows=windows)
    except (EdgeError, OSError) as error:
        log.warning("what is inferred here is not counted: %s", error)
        return _Shared(windows, None)
    recorder.start()
    return _Shared(windows, recorder)
