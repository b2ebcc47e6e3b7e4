"""The agent: one thread that decides, beside those of the network and the sensor."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from functools import partial

from edge_client import notify
from edge_client.cadence import look_every
from edge_client.errors import EdgeError
from edge_client.live_file import LiveFile
from edge_client.local_service import LocalService
from edge_client.loop import AgentEvent, Events, Jobs, guarded_thread
from edge_client.opening import usable_journal
from edge_client.parts import Boot, Parts
from edge_client.probation_watch import keep_times
from edge_client.self_report import birth_of, live_of, names_of, status_line
from edge_client.serving import serve_proven
from edge_client.settings import Home, RunSettings
from edge_client.staging import TrialEnded
from edge_client.states import Ended, Idle, hold_of
from edge_client.stream import Stream, read_source
from edge_client.transport import Acknowledged, Connected, Disconnected, Received
from edge_client.updater import AGAIN_SECONDS
from schemas.device import Birth
from schemas.errors import Exit
from schemas.rollout import ExecState
from schemas.topics import Down

TICK_SECONDS = 0.2
LIVE_SECONDS = 1.0
STOP_SECONDS = 1.5
JOURNAL_SECONDS = 30.0
TIMES_SECONDS = 60.0
RECOVER_SECONDS = 60.0
MAX_FAULTS = 20
"""Faults in a row after which the agent ends, to be started anew."""

log = logging.getLogger(__name__)


class Agent:
    """A device at work in one home. Build it, then ``run`` it once."""

    def __init__(self, home: Home, settings: RunSettings) -> None:
        """Read everything that can be wrong before anything starts.

        Raises:
            EdgeError: the home or an option is not usable.
        """
        self._home, self._settings = home, settings
        source = None if settings.source is None else read_source(settings.source)
        self._boot = Boot.now()
        self._uptime = self._boot.uptime
        self._events = Events()
        self._live = LiveFile(home.live, self._uptime)
        self._stop = threading.Event()
        self._fault: str | None = None
        self._problem: str | None = "not connected yet"
        self._troubled: str | None = None
        parts = Parts(home, settings, boot=self._boot, events=self._events, birth=self._birth)
        self._parts, self._read_only = parts, parts.read_only
        self._identity, self._device = parts.identity, parts.device
        self._runtime, self._windows = parts.runtime, parts.windows
        self._journal, self._buffer, self._spool = parts.journal, parts.buffer, parts.spool
        self._transport, self._uplink = parts.transport, parts.uplink
        self._standing, self._autobench = parts.standing, parts.autobench
        self._updater, self._inbox = parts.updater, parts.inbox
        self._service = LocalService(self._runtime, settings)
        self._sensor: threading.Thread | None = None
        if source is not None:
            stream = Stream(
                source,
                rate=settings.rate,
                runtime=self._runtime,
                stop=self._stop,
                model=settings.source_model,
            )
            self._sensor = guarded_thread("sensor", stream.run, self._fail)

    def stop(self) -> None:
        """Ask it to end; may be called from a signal handler."""
        self._stop.set()

    def run(self) -> Exit:
        """Serve first, then connect; go on until stopped.

        Returns:
            OK; with ``once``, GATE_FAILED when the update did not succeed; FAILED when
            a part died.
        """
        self._parts.watchdog.start()
        try:
            # First: an address that is taken must not count as a start that a model brought down.
            self._service.start()
            self._serve()
            serving = names_of(self._runtime.slots())
            log.info("device %s, serving %s", self._identity.record.device, serving)
            if self._sensor is not None:
                self._sensor.start()
            self._transport.start()
            self._recover()
            notify.notify(notify.READY, notify.status(f"serving {serving}"))
            return self._loop()
        finally:
            self._end()
            self._parts.watchdog.stopped()

    def _serve(self) -> None:
        """Serve before anything else, whatever state the files are in."""
        if self._read_only is None:
            self._updater.boot()
            return
        self._device.problems.note(f"no updates are taken: {self._read_only}")
        serve_proven(self._device, self._updater.look_on())

    # --- the loop ---------------------------------------------------------------------

    def _loop(self) -> Exit:
        heartbeat = max(1.0, self._identity.record.heartbeat_seconds)
        jobs = Jobs(self._uptime)
        jobs.add(look_every(self._settings.window), self._cut_if_due)
        jobs.add(RECOVER_SECONDS, self._recover)
        jobs.add(LIVE_SECONDS, self._windows.power.sample)
        jobs.add(heartbeat, self._transport.announce)
        jobs.add(LIVE_SECONDS, self._write_live)
        jobs.add(AGAIN_SECONDS, self._inbox.again)
        jobs.add(LIVE_SECONDS, self._standing.renewer.look)
        jobs.add(LIVE_SECONDS, self._parts.rollbacks.look)
        jobs.add(LIVE_SECONDS, self._parts.wishes.look)
        jobs.add(TIMES_SECONDS, lambda: keep_times(self._device))
        if self._read_only is not None:
            jobs.add(JOURNAL_SECONDS, self._look_for_journal)
        elif self._settings.bench:
            jobs.add(LIVE_SECONDS, self._look_for_bench)
        jobs.add(TICK_SECONDS, lambda: self._uplink.pump(self._uptime()))
        announced = self._runtime.slots()
        pump_at, faults = 0.0, 0
        while not self._stop.is_set():
            self._parts.watchdog.beat()
            until = min(jobs.next_at(), pump_at)
            handled = self._take(max(0.0, min(until - self._uptime(), TICK_SECONDS)))
            try:
                if handled or self._uptime() >= pump_at:
                    pump_at = min(self._updater.pump(), self._inbox.pump())
                jobs.run()
                faults = 0
            except (EdgeError, OSError, sqlite3.Error) as error:
                faults += 1
                self._trouble(error)
                pump_at = self._uptime() + 1.0
                if faults >= MAX_FAULTS:
                    raise
            if self._runtime.slots() != announced:
                announced = self._runtime.slots()
                self._transport.announce()
            if not self._transport.alive:
                self._fail("the network part died")
            if self._settings.once and (code := self._finished()) is not None:
                return code
        return Exit.OK if self._fault is None else Exit.FAILED

    def _take(self, timeout: float) -> bool:
        """Handle what has come; the first of it is waited for."""
        handled = False
        for event in self._events.take(timeout):
            self._handle(event)
            handled = True
        return handled

    def _handle(self, event: AgentEvent) -> None:
        """Handle one event. A bad message must never end the agent: it would come again."""
        try:
            self._dispatch(event)
        except Exception as error:  # whatever it was, the device goes on serving
            if not isinstance(error, EdgeError | OSError):
                log.exception("an event could not be handled")
            self._trouble(error)

    def _dispatch(self, event: AgentEvent) -> None:
        if self._standing.take(event):
            return
        match event:
            # Without the journal's floor nothing that comes can be trusted to be new.
            case Received(leaf=leaf, payload=payload) if (
                self._read_only is None and leaf is not Down.TIME
            ):
                self._inbox.take(leaf, payload)
            case Received(leaf=Down.TIME, payload=payload):
                self._uplink.time.take(payload)
            case Acknowledged():
                self._uplink.acknowledged(event, self._uptime())
            case TrialEnded():
                self._updater.trial_ended(event)
            case Connected(session=session):
                log.info("connected (connection %d)", session)
                self._uplink.now_connected()
                self._problem = None
                self._standing.connected(event)
                self._updater.connected()
                if self._read_only is None:
                    self._inbox.connected()
            case Disconnected(reason=reason):
                self._lost(reason)
                self._standing.disconnected(event)

    def _lost(self, reason: str) -> None:
        if reason != self._problem:
            log.warning("not connected: %s", reason)
        self._problem = reason
        self._uplink.disconnected()
        self._updater.disconnected()
        self._inbox.disconnected()

    def _finished(self) -> Exit | None:
        state = self._updater.state
        if not isinstance(state, Ended) or not self._uplink.reported:
            return None
        return Exit.OK if state.outcome is ExecState.SUCCEEDED else Exit.GATE_FAILED

    # --- what the loop does from time to time -----------------------------------------

    @property
    def _in_peace(self) -> bool:
        return self._updater.settled and isinstance(self._updater.state, Idle | Ended)

    def _cut_if_due(self) -> None:
        # One that waits may do so for weeks, and nothing is new meanwhile.
        waits = hold_of(self._updater.state) is not None
        if self._parts.recorder.due(updating=not (self._in_peace or waits)):
            self._cut()

    def _cut(self) -> None:
        try:
            self._parts.recorder.cut()
        except EdgeError as error:
            self._trouble(error)  # the next cut has what this one could not write
        self._uplink.hurry()

    def _recover(self) -> None:
        try:
            if self._parts.recorder.recover():
                self._uplink.hurry()
        except (EdgeError, OSError, sqlite3.Error) as error:
            self._trouble(error)

    def _look_for_journal(self) -> None:
        """The journal may be usable again, as when there is room; then start anew."""
        with contextlib.suppress(EdgeError):
            usable_journal(self._home, boot=self._boot.id).close()
            self._fail("the journal can be used again")

    def _look_for_bench(self) -> None:
        self._autobench.look(self._runtime.slots(), in_peace=self._in_peace)

    def _write_live(self) -> None:
        live = live_of(self._parts, self._problem)
        notify.notify(status_line(live, self._runtime.slots()))
        self._live.tell(live)

    # --- the parts --------------------------------------------------------------------

    def _birth(self, session: int) -> Birth:
        return birth_of(self._parts, session)

    def _fail(self, what: str) -> None:
        if not self._stop.is_set():
            self._fault = what
            log.error("%s; the agent ends", what)
            self._stop.set()

    def _trouble(self, error: Exception) -> None:
        if str(error) != self._troubled:  # a disk that is full stays so for long
            log.warning("%s", error)
        self._problem = self._troubled = str(error)

    def _end(self) -> None:
        """Keep what is not sent, and say goodbye."""
        self._stop.set()
        notify.notify(notify.STOPPING)
        self._parts.watchdog.stop()
        self._service.stop()
        self._runtime.shadow(None)
        keep_times(self._device)
        self._autobench.stop()
        self._transport.stop(STOP_SECONDS)
        if self._sensor is not None and self._sensor.is_alive():
            self._sensor.join(0.5)
        forget = partial(self._home.live.unlink, missing_ok=True)
        recorded = (self._parts.recorder.close, self._parts.close_samples, self._buffer.close)
        keep = (self._updater.close, *recorded, self._spool.close, self._journal.close)
        for last in (*keep, forget):  # one that fails does not keep the others from it
            try:
                last()
            except (EdgeError, OSError, sqlite3.Error) as error:
                log.warning("%s", error)
