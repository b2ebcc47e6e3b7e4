"""Keeps what a process counts: windows in the device's file, and bare counts that outlive it.

The agent calls ``cut``, ``look`` and ``recover`` from its own loop; a user's process has a thread
(``start``). After ``close`` nothing is left open.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading

from edge_client.cadence import is_due, look_every
from edge_client.errors import EdgeError, JournalError
from edge_client.gauges import celsius, find_thermometer, rss_mb
from edge_client.live_counts import files, owned, read_file
from edge_client.live_layout import NOTHING, Left
from edge_client.sample_store import SampleStore, quota_of
from edge_client.settings import Home
from edge_client.tally import Subject
from edge_client.telemetry import Cut, Windows
from edge_client.telemetry_buffer import Buffer
from edge_client.telemetry_rows import Entry
from edge_client.window_form import about_of, lost_window, window_of

JOIN_SECONDS = 5.0

log = logging.getLogger(__name__)


class Recorder:
    """Of one process. Its methods are called from one thread at a time."""

    def __init__(
        self,
        home: Home,
        *,
        boot: str,
        windows: Windows,
        buffer: Buffer | None = None,
        every: float | None = None,
    ) -> None:
        """Open the files.

        Args:
            home: the device's.
            boot: of this process, 32 hex digits drawn at its start.
            windows: what the runtime feeds.
            buffer: the device's windows, already open; it then stays open.
            every: seconds from one cut to the next; None as ``cadence`` says.

        Raises:
            JournalError: the file of windows cannot be used.
        """
        self._home, self._boot, self._windows = home, bytes.fromhex(boot), windows
        self._own = buffer is None
        self.buffer = Buffer(home.telemetry) if buffer is None else buffer
        self._every, self._cut_at = every, windows.clocks.steady()
        self._thermometer = find_thermometer()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._said: str | None = None
        self._moved = False
        self._samples: SampleStore | None = None
        self._keep_counts()
        self._look_for_opt_in()

    # --- a user's process ---------------------------------------------------------------

    def start(self) -> None:
        """Cut windows from now on, by a thread."""
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is open, and let go of all files."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(JOIN_SECONDS)
        written = self._tried()
        # In this order: a file without its marks would be counted twice.
        self._windows.leave(forget=written)
        if written:
            with contextlib.suppress(sqlite3.Error):
                self.buffer.forget(self._boot)
        if self._samples is not None:
            self._samples.close()
        if self._own:
            self.buffer.close()

    # --- both ---------------------------------------------------------------------------

    def due(self, *, updating: bool = False) -> bool:
        """Whether it is time for a cut. updating: an update is under way."""
        return is_due(
            self._windows.clocks.steady(),
            cut_at=self._cut_at,
            loaded_at=self._windows.loaded_at,
            updating=updating,
            every=self._every,
        )

    def cut(self) -> None:
        """Close the open windows and write them; what cannot be written is in the next cut.

        Raises:
            JournalError: they could not be written now.
        """
        self._cut_at = self._windows.clocks.steady()
        self._look_for_opt_in()
        cuts = self._windows.cut()
        dropped, self._windows.dropped = self._windows.dropped, 0
        self._keep_samples()
        try:
            self._moved = self.buffer.reopen() or self._moved
            entries = [self._entry(cut) for cut in cuts]
            # What another file had of our counts is marked in this one: else it would count again.
            marks = self._windows.settled if self._moved else {}
            self.buffer.put(self._boot, entries, dropped=dropped, marks=marks)
            if self._moved:
                self._windows.live.belongs(self.buffer.store, self._windows.clocks.machine)
                self._moved = False
        except (EdgeError, OSError, sqlite3.Error) as error:
            self._windows.restore(cuts)
            self._windows.dropped += dropped
            msg = str(error)
            raise JournalError(msg) from error
        self._windows.written(cuts)

    def recover(self) -> int:
        """Make windows of what dead processes counted and did not write.

        A repeat changes nothing: what was made windows of is marked in the same transaction.

        Returns:
            How many windows.

        Raises:
            JournalError: they could not be written; all is as before.
        """
        made, living = 0, {self._boot}
        if self.buffer.in_memory:
            return 0  # the next start with a file does it
        for boot, path in files(self._home.live_counts):
            with owned(path) as mine:
                if not mine:
                    living.add(boot)
                    continue
                left = read_file(path)
                entries = [] if left is None else self._left(boot, left)
                self.buffer.put(boot, entries)
                path.unlink(missing_ok=True)
                self.buffer.forget(boot)
                made += len(entries)
        self.buffer.tidy(living)
        return made

    def _run(self) -> None:
        while not self._stop.wait(look_every(self._every)):
            if self.due():
                self._tried()

    def _tried(self) -> bool:
        """Cut; a problem is said once, and is over when it is."""
        try:
            self.cut()
        except JournalError as error:
            if str(error) != self._said:
                log.warning("%s", error)
            self._said = str(error)
            return False
        except Exception:  # a user's program must not lose its telemetry for good by one fault
            log.exception("telemetry could not be cut")
            return False
        self._said = None
        return True

    def _keep_counts(self) -> None:
        """Bare counts in a file, where one can be made; they then outlive the process."""
        if self.buffer.in_memory:
            return
        path = self._home.live_counts / self._boot.hex()
        try:
            self._windows.keep(path, store=self.buffer.store)
        except OSError as error:
            log.warning("counts are kept in memory alone: %s", error)

    def _look_for_opt_in(self) -> None:
        """Follow what the operator opted in to: the agent writes it down."""
        quota = quota_of(self._home.samples)
        sampler = self._windows.sampler
        if quota == (0 if sampler is None else sampler.per_hour):
            return
        if self._samples is not None:
            self._samples.close()
        self._samples = None if quota == 0 else SampleStore(self._home.samples)
        self._windows.use(quota)

    def _keep_samples(self) -> None:
        sampler = self._windows.sampler
        ready = [] if sampler is None else sampler.taken()
        if self._samples is None:
            return
        try:
            self._samples.put(self._boot, self._windows.clocks.machine, ready)
        except JournalError as error:  # windows are worth more
            log.warning("%s", error)

    # --- what is written ----------------------------------------------------------------

    def _entry(self, cut: Cut) -> Entry:
        tally = cut.tally
        return Entry(
            about=about_of(self._boot, tally.subject),
            window=window_of(
                tally,
                method=self._windows.method,
                rss=rss_mb(),
                heat=celsius(self._thermometer),
                sent=self._sent(tally.subject),
            ),
            machine=tally.machine,
            steady=tally.steady,
            date=tally.date,
            serial=cut.serial,
            totals=cut.totals,
        )

    def _sent(self, subject: Subject) -> int:
        if self._samples is None or subject.role != "active":
            return 0
        return self._samples.take_sent(subject.slot)

    def _left(self, boot: bytes, left: Left) -> list[Entry]:
        if left.store != self.buffer.store:
            log.warning("what a process counted belongs to a telemetry file that is gone")
            return []
        marks, entries = self.buffer.marks(boot), []
        for record in left.records:
            gone = record.totals.beyond(marks.get(record.serial, NOTHING))
            if not gone.empty:
                entries.append(
                    Entry(
                        about=about_of(boot, record.subject),
                        window=lost_window(gone, record.last - record.since),
                        machine=left.machine,
                        steady=record.since,
                        date=record.date,
                        serial=record.serial,
                        totals=record.totals,
                    )
                )
        return entries
