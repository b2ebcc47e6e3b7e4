"""``agent.json`` on the disk: written when it says something new, to spare the SD card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge_client.files import write_atomic
from edge_client.status import Live

AT_LEAST_SECONDS = 60.0


class LiveFile:
    """Of one agent. Used from one thread.

    A file replaced each second is 86,400 journalled writes a day of what mostly did not change.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        """Prepare. clock: seconds that only grow."""
        self._path, self._clock = path, clock
        self._said: Live | None = None
        self._due = 0.0

    def tell(self, live: Live) -> bool:
        """Write it, if anything but the uptime changed or the last time is long ago.

        Returns:
            Whether it was written.

        Raises:
            OSError: it could not be written; it is tried again at the next call.
        """
        same = live.model_copy(update={"uptime": 0.0})
        now = self._clock()
        if same == self._said and now < self._due and self._path.exists():
            return False
        write_atomic(self._path, live.model_dump_json().encode(), durable=False)
        self._said, self._due = same, now + AT_LEAST_SECONDS
        return True
