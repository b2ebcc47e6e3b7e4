"""The agent's local server with its queue, where ``argosy-edge run`` was told to have one.

Nothing of it is imported otherwise: a device that serves nobody has no use for it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from edge_client.runtime import Runtime
from edge_client.settings import RunSettings

if TYPE_CHECKING:
    from edge_client.batching import Batcher
    from edge_client.server.local import LocalServer


log = logging.getLogger(__name__)


class LocalService:
    """Of one agent."""

    def __init__(self, runtime: Runtime, settings: RunSettings) -> None:
        """Prepare; nothing is opened yet.

        Raises:
            UsageError: an address cannot be served.
        """
        self._batcher: Batcher | None = None
        self._server: LocalServer | None = None
        if not (settings.serve or settings.serve_grpc):
            return
        from edge_client.batching import Batcher  # noqa: PLC0415 - only who serves needs it
        from edge_client.queueing import BatchSettings  # noqa: PLC0415 - likewise
        from edge_client.server.addresses import parse_address  # noqa: PLC0415 - likewise
        from edge_client.server.local import LocalServer  # noqa: PLC0415 - likewise

        http = [parse_address(text) for text in settings.serve]
        grpc = [parse_address(text) for text in settings.serve_grpc]
        queue = BatchSettings(
            max_batch=settings.max_batch,
            max_delay=settings.max_delay,
            max_requests=settings.queue,
        )
        self._batcher = Batcher(runtime, queue)
        self._server = LocalServer(runtime, self._batcher, http, grpc=grpc)

    def start(self) -> None:
        """Listen.

        Raises:
            ServeError: an address cannot be taken, or gRPC is not installed.
        """
        if self._server is None:
            return
        self._server.start()
        for kind, places in (("HTTP", self._server.bound), ("gRPC", self._server.grpc_bound)):
            if places:
                log.info("answers inference requests (%s) at %s", kind, ", ".join(map(str, places)))

    def stop(self) -> None:
        """Answer what was asked, for some seconds at most, and end."""
        if self._server is not None:
            self._server.stop()
        if self._batcher is not None:
            self._batcher.close()
