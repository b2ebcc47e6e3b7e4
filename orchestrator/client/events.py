"""The event stream: an iterator that survives lost connections."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

import httpx
from pydantic import ValidationError

from orchestrator.client.errors import AnswerError, ArgosyError, is_outage
from orchestrator.client.sse import Parser
from orchestrator.client.transport import Transport
from schemas.api import Event

PATH = "/v1/events"
SILENCE_SECONDS = 60.0
"""A stream without even a heartbeat for so long is taken for dead."""

PATIENCE_SECONDS = 60.0
FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0


class EventStream:
    """Iterates the events of a subject, or of all; connects again where it left off.

    Args:
        transport: the platform.
        subject: a job's, device's or rollout's id, or a model's name; None for all.
        after: the id of the last event already seen; None begins now.
        kind: only of this kind; a platform older than this may send others, too.
        patience: seconds without the platform after which its absence is an error.
        sleep: waits that many seconds; returns True to give up. For tests.

    Raises (while iterating):
        ArgosyError: the request is refused, or the platform stays away.
    """

    def __init__(
        self,
        transport: Transport,
        subject: str | None = None,
        after: int | None = None,
        *,
        kind: str | None = None,
        patience: float = PATIENCE_SECONDS,
        sleep: Callable[[float], bool] | None = None,
    ) -> None:
        self._transport = transport
        self._subject = subject
        self._last = after
        self._kind = kind
        self._patience = patience
        self._closed = threading.Event()
        self._sleep = sleep or self._closed.wait
        self._response: httpx.Response | None = None

    def __iter__(self) -> Iterator[Event]:
        failures, lost_at = 0, None
        while not self._closed.is_set():
            try:
                for event in self._connection():
                    failures, lost_at = 0, None
                    yield event
                error: ArgosyError | None = None
            except ArgosyError as caught:
                if self._closed.is_set():
                    return
                if not is_outage(caught):
                    raise
                error = caught
            now = time.monotonic()
            lost_at = now if lost_at is None else lost_at
            if error is not None and now - lost_at >= self._patience:
                raise error
            if self._sleep(pause(failures, random.random())):  # noqa: S311 - jitter
                return
            failures += 1

    def _connection(self) -> Iterator[Event]:
        headers = {"Accept": "text/event-stream"}
        if self._last is not None:
            headers["Last-Event-ID"] = str(self._last)
        params = {"subject": self._subject, "after": self._last, "kind": self._kind}
        with self._transport.stream(PATH, params, headers, SILENCE_SECONDS) as response:
            self._response = response
            parser = Parser()
            for chunk in response.iter_bytes():
                yield from self._events(parser, chunk)

    def _events(self, parser: Parser, chunk: bytes) -> Iterator[Event]:
        try:
            for message in parser.feed(chunk):
                event = Event.model_validate_json(message.data)
                if self._last is None or event.id > self._last:
                    self._last = event.id
                    yield event
        except (ValidationError, ValueError) as error:
            detail = f"the event stream is not understood: {error}"
            raise AnswerError(detail) from error

    def close(self) -> None:
        """End the stream, from any thread."""
        self._closed.set()
        response = self._response
        stream = None if response is None else response.extensions.get("network_stream")
        sock = None if stream is None else stream.get_extra_info("socket")
        if sock is not None:
            # Closing would not wake the thread that reads; shutting down does.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def pause(failures: int, jitter: float) -> float:
    """Seconds until the next attempt: doubled each time, and halved at random.

    Args:
        failures: attempts that failed so far.
        jitter: uniform in 0..1.
    """
    full = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 10))
    return full * (0.5 + 0.5 * jitter)


class Bell:
    """Rings when something happened to a subject, so that a follower looks at once.

    It carries no data and never fails: followers look anyway from time to time, and
    their look is what raises errors.
    """

    def __init__(self, transport: Transport, subject: str) -> None:
        self._stream = EventStream(transport, subject, patience=float("inf"))
        self._rung = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="argosy-events", daemon=True)

    def _listen(self) -> None:
        with contextlib.suppress(ArgosyError):
            for _event in self._stream:
                self._rung.set()

    def wait(self, seconds: float) -> None:
        """Return when it rang since the last call, or after so many seconds."""
        self._rung.wait(seconds)
        self._rung.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._thread.join(timeout=2.0)
