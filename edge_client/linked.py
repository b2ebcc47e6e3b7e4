"""A file by HTTPS: what ``edge_client.fetch_https`` reads is put in place in its thread."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge_client.fetch_https import HttpsChunk, HttpsEnded, HttpsEvent, HttpsSource, HttpsWanted
from edge_client.https import Server
from edge_client.inlet import Sink
from edge_client.partial import Partial
from edge_client.transfer import ranges
from schemas.transfer import HttpsOffer

JOIN_SECONDS = 0.2

log = logging.getLogger(__name__)


class Linked:
    """From an offer to its end; what it leaves out is had otherwise."""

    def __init__(
        self,
        server: Server,
        offer: HttpsOffer,
        target: Partial,
        sink: Sink,
        *,
        rate: int | None,
        nudge: Callable[[], None],
    ) -> None:
        """Begin.

        Args:
            server: where the device enrolled.
            offer: the link.
            target: the file.
            sink: takes its chunks.
            rate: bytes a second at most.
            nudge: called at the end, from the thread that reads.
        """
        self.ended = False
        self.link_over = False
        self.wasted = 0
        self._sink, self._nudge = sink, nudge
        missing = [index for index in range(len(target.leaves)) if target.wants(index)]
        wanted = HttpsWanted(
            path=offer.path,
            sha256=target.file.sha256,
            size=target.file.size,
            ranges=ranges(missing),
        )
        self._source = HttpsSource(server, wanted, self._take, rate=rate)
        self._source.start()

    def close(self) -> None:
        """Hand over nothing more."""
        self._source.cancel()
        self._source.join(JOIN_SECONDS)

    def _take(self, event: HttpsEvent) -> None:
        if isinstance(event, HttpsChunk):
            self._sink.take(event.index, event.data, None)
            event.source.taken()
        elif isinstance(event, HttpsEnded):
            if event.problem is not None:
                log.warning("HTTPS did not bring all: %s", event.problem)
            self.wasted, self.link_over = event.wasted, event.link_over
            self.ended = True
            self._nudge()
