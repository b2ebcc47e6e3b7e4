"""Running the trial load in its own process, with limits and a deadline."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from edge_client.probe import Trial, Verdict
from edge_client.settings import GIB, Home
from edge_client.slots import Slot
from edge_client.states import Key
from schemas.errors import DeviceCause

MEMORY_FACTOR = 16
"""A model may map this many times its own size, beside what the runtime needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEnded:
    """The trial load's verdict on an execution, as an event for the updater's thread."""

    key: Key
    verdict: Verdict


class TrialRun:
    """One trial. ``on_end`` is called from another thread, once, unless abandoned."""

    def __init__(
        self,
        home: Home,
        slot: Slot,
        *,
        size: int,
        seconds: float,
        on_end: Callable[[Verdict], None],
    ) -> None:
        """Start it. size: of the model file in bytes. seconds: its wall and CPU limit."""
        self._trial = Trial(
            home=str(home.root.resolve()),
            manifest_sha256=slot.manifest_sha256,
            variant=slot.variant,
            address_bytes=2 * GIB + MEMORY_FACTOR * size,
            cpu_seconds=max(1, int(seconds)),
        )
        self._seconds, self._on_end = seconds, on_end
        self._abandoned = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        threading.Thread(target=self._run, name="trial", daemon=True).start()

    def abandon(self) -> None:
        """Kill it; its verdict is not wanted any more."""
        with self._lock:
            self._abandoned.set()
            if self._process is not None:
                self._process.kill()

    def _run(self) -> None:
        try:
            verdict = self._verdict()
        except OSError as error:
            verdict = Verdict(cause=DeviceCause.INTERNAL, detail=f"no trial was possible: {error}")
        if not self._abandoned.is_set():
            self._on_end(verdict)

    def _verdict(self) -> Verdict:
        # An empty folder to work in: nothing that a model could name lies there.
        with tempfile.TemporaryDirectory(prefix="argosy-trial-") as folder:
            with self._lock:
                if self._abandoned.is_set():
                    return Verdict(cause=DeviceCause.CANCELLED)
                self._process = process = subprocess.Popen(
                    [sys.executable, "-m", "edge_client.probe"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    cwd=folder,
                    text=True,
                )
            try:
                out, _ = process.communicate(self._trial.model_dump_json(), timeout=self._seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                detail = f"the trial load took longer than {self._seconds:g} s"
                return Verdict(cause=DeviceCause.LOAD_FAILED, detail=detail)
        with contextlib.suppress(ValidationError):
            if process.returncode == 0:
                return Verdict.model_validate_json(out.strip())
        return died(process.returncode)


def died(status: int) -> Verdict:
    """What a trial says that gave no verdict. status: of its process, below 0 by a signal."""
    if status == -signal.SIGKILL:
        detail = "the trial load was killed, as it is when the device's memory runs out"
        return Verdict(cause=DeviceCause.OUT_OF_MEMORY, detail=detail)
    if status == -signal.SIGXCPU:
        detail = "the trial load took more CPU time than it may"
        return Verdict(cause=DeviceCause.LOAD_FAILED, detail=detail)
    with contextlib.suppress(ValueError):
        detail = f"the trial load crashed ({signal.Signals(-status).name})"
        return Verdict(cause=DeviceCause.LOAD_FAILED, detail=detail)
    detail = f"the trial load ended with status {status}"
    return Verdict(cause=DeviceCause.LOAD_FAILED, detail=detail)
