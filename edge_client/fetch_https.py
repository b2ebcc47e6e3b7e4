"""The chunks of one file by HTTPS, read in a thread of its own and handed over as events.

How the deciding thread uses it::

    source = HttpsSource(server, wanted, post, rate=bandwidth)   # wanted: file, link, ranges
    source.start()
    ...
    HttpsChunk(source, index, data)   # check the leaf, write it, then:
    source.taken()                    # at most MAX_UNTAKEN chunks are under way untaken
    ...
    HttpsEnded(source, missing, problem, link_over, wasted)       # once, and last

Nothing is checked here but sizes: whether a chunk is the right one its leaf says. An event of a
source that was cancelled may still come: compare ``event.source`` with the present one. ``missing``
are the ranges that were not handed over; ``link_over`` says that another link may bring them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias

from edge_client.errors import ServerError, UnreachableError
from edge_client.https import Server, refusal_of, retry_after
from edge_client.transfer import Bucket
from schemas.transfer import CHUNK_BYTES, Range

if TYPE_CHECKING:
    import httpx

MAX_UNTAKEN = 16
"""Chunks on their way to the deciding thread: 1 MiB."""

MAX_FRUITLESS = 4
"""Tries in a row that brought no chunk."""

READ_SECONDS = 10.0
CHUNK_SECONDS = 60.0
"""A chunk that takes longer is a connection that trickles; it is cut."""

UNTAKEN_SECONDS = 120.0
MAX_WAIT_SECONDS = 30.0

_WHOLE, _PART = 200, 206
_BUSY = frozenset({429, 503})
_MAX_REFUSAL_BYTES = 64 * 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HttpsWanted:
    """path: of ``HttpsOffer``. size: of the file. ranges: of chunks, ascending, apart."""

    path: str
    sha256: str
    size: int
    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class HttpsChunk:
    """One whole chunk; the file's last may be shorter than 64 KiB."""

    source: HttpsSource
    index: int
    data: bytes


@dataclass(frozen=True, slots=True)
class HttpsEnded:
    """A source is done, or gave up.

    missing: ranges that it did not bring; empty when all is there. problem: why not, in one line.
    link_over: the server does not honour the link any more; it may give another one.
    wasted: bytes that came and are in no chunk.
    """

    source: HttpsSource
    missing: tuple[Range, ...]
    problem: str | None
    link_over: bool
    wasted: int


HttpsEvent: TypeAlias = HttpsChunk | HttpsEnded


class _CutError(Exception):
    """The connection broke, or is as good as broken; another try may go on."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class _StopError(Exception):
    """There is no use in going on."""


@dataclass(slots=True)
class _Cutter:
    """Cuts the bytes of chunks ``index`` up to ``last`` of a file into these chunks."""

    index: int
    last: int
    end: int
    rest: bytearray = field(default_factory=bytearray)

    def feed(self, piece: bytes) -> Iterator[tuple[int, bytes]]:
        """The chunks that are whole with this piece."""
        left = memoryview(piece)
        while left:
            if self.index == self.last:
                msg = "the server sent more than it was asked for"
                raise _StopError(msg)
            size = min(CHUNK_BYTES, self.end - self.index * CHUNK_BYTES)
            lacking = size - len(self.rest)
            self.rest += left[:lacking]
            left = left[lacking:]
            if len(self.rest) == size:
                whole = bytes(self.rest)
                self.rest.clear()
                yield self.index, whole
                self.index += 1


class HttpsSource:
    """Brings ranges of chunks of one file.

    Args:
        server: where the device enrolled; nothing is sent before it is believed.
        wanted: the file, the link and the ranges.
        post: takes events, from this source's thread.
        rate: bytes a second at most; None for no limit.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        server: Server,
        wanted: HttpsWanted,
        post: Callable[[HttpsEvent], None],
        *,
        rate: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.wanted = wanted
        self._server, self._post, self._clock = server, post, clock
        self._bucket = None if rate is None else Bucket(rate=float(rate))
        self._todo: list[Range] = list(wanted.ranges)
        self._untaken = threading.Semaphore(MAX_UNTAKEN)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="https", daemon=True)
        self._wasted = 0
        self._link_over = False

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def taken(self) -> None:
        """The deciding thread has dealt with a chunk; one more may come."""
        self._untaken.release()

    def cancel(self) -> None:
        """Hand over no more chunks. The end is still told, within ``READ_SECONDS`` or so."""
        self._stop.set()
        self._untaken.release()  # it may wait for that

    def join(self, timeout: float) -> bool:
        """Wait for the thread's end; whether it has come."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        problem: str | None = None
        try:
            self._fetch()
        except (_StopError, ServerError) as error:
            problem = str(error)
        except Exception as error:  # its end must be told, whatever it was
            log.exception("fetching by HTTPS died")
            problem = f"fetching by HTTPS failed: {type(error).__name__}"
        missing = tuple(self._todo)
        self._post(HttpsEnded(self, missing, problem, self._link_over, self._wasted))

    def _fetch(self) -> None:
        fruitless = 0
        with self._connected() as client:
            while self._todo:
                before = list(self._todo)
                try:
                    self._request(client, self._todo[0])
                except _CutError as cut:
                    fruitless = 0 if self._todo != before else fruitless + 1
                    if fruitless >= MAX_FRUITLESS:
                        msg = f"HTTPS gave up after {fruitless} tries: {cut}"
                        raise _StopError(msg) from None
                    self._sleep(2.0**fruitless / 2 if cut.wait is None else cut.wait)

    def _connected(self) -> httpx.Client:
        import httpx  # noqa: PLC0415 - 6 MB that an agent which fetches by MQTT does without

        for tried in range(MAX_FRUITLESS):
            try:
                trust = self._server.believed()
            except UnreachableError:
                if tried + 1 == MAX_FRUITLESS:
                    raise
                self._sleep(2.0**tried)
            else:
                return httpx.Client(verify=trust, timeout=READ_SECONDS, follow_redirects=False)
        raise AssertionError

    def _request(self, client: httpx.Client, span: Range) -> None:
        """Read one range; what came of it is no more in ``_todo``."""
        import httpx  # noqa: PLC0415 - likewise

        start, end = span[0] * CHUNK_BYTES, min(span[1] * CHUNK_BYTES, self.wanted.size)
        headers = {
            "range": f"bytes={start}-{end - 1}",
            "if-range": f'"{self.wanted.sha256}"',
            "accept-encoding": "identity",
        }
        try:
            url = self._server.url + self.wanted.path
            with client.stream("GET", url, headers=headers) as answer:
                self._check(answer, start, end)
                self._take(answer.iter_raw(), span, end)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            # Without the address: the link in it is a right.
            raise _CutError(str(error) or type(error).__name__) from error

    def _check(self, answer: httpx.Response, start: int, end: int) -> None:
        """See that the answer is the range."""
        if answer.status_code not in {_WHOLE, _PART}:
            self._refuse(answer)
        whole = (start, end) == (0, self.wanted.size)
        if answer.status_code == _WHOLE and not whole:
            msg = "the server, or a proxy before it, gives no parts of files"
            raise _StopError(msg)
        told = answer.headers.get("content-range", "")
        if answer.status_code == _PART and told != f"bytes {start}-{end - 1}/{self.wanted.size}":
            msg = f"the server gave another part than it was asked for: {told[:80]!r}"
            raise _StopError(msg)
        coding = answer.headers.get("content-encoding", "identity")
        if coding != "identity":
            msg = f"a proxy has changed the file: content-encoding {coding[:40]!r}"
            raise _StopError(msg)

    def _refuse(self, answer: httpx.Response) -> None:
        data = b""
        for piece in answer.iter_raw():
            data += piece
            if len(data) > _MAX_REFUSAL_BYTES:
                break
        why = refusal_of("the server", answer, data[:_MAX_REFUSAL_BYTES])
        if answer.status_code in _BUSY or isinstance(why, UnreachableError):
            raise _CutError(str(why), retry_after(answer.headers.get("retry-after")))
        self._link_over = answer.status_code == HTTPStatus.FORBIDDEN
        raise _StopError(str(why))

    def _take(self, pieces: Iterator[bytes], span: Range, end: int) -> None:
        """Hand over the chunks of a range's answer."""
        cutter = _Cutter(*span, end)
        until = self._clock() + CHUNK_SECONDS
        try:
            for piece in pieces:
                for index, data in cutter.feed(piece):
                    self._hand_over(index, data)
                    until = self._clock() + CHUNK_SECONDS
                self._going()
                if self._clock() > until:
                    msg = f"no chunk came in {CHUNK_SECONDS:g} s"
                    raise _CutError(msg)
        finally:
            self._wasted += len(cutter.rest)
        if cutter.index < cutter.last:
            msg = "the connection ended early"
            raise _CutError(msg)

    def _hand_over(self, index: int, data: bytes) -> None:
        while self._bucket is not None and self._bucket.chunks(now := self._clock()) < 1:
            self._sleep(self._bucket.ready_at(now) - now)
        if not self._untaken.acquire(timeout=UNTAKEN_SECONDS):
            msg = "the agent did not take what came by HTTPS"
            raise _StopError(msg)
        self._going()
        if self._bucket is not None:
            self._bucket.spend(1)
        self._todo[:1] = _after(self._todo[0])
        self._post(HttpsChunk(self, index, data))

    def _sleep(self, seconds: float) -> None:
        self._stop.wait(min(max(seconds, 0.01), MAX_WAIT_SECONDS))
        self._going()

    def _going(self) -> None:
        if self._stop.is_set():
            msg = "cancelled"
            raise _StopError(msg)


def _after(span: Range) -> list[Range]:
    """What is left of a range without its first chunk."""
    return [(span[0] + 1, span[1])] if span[0] + 1 < span[1] else []
