"""Fetching the files of a version, one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from edge_client.https import Server
from edge_client.network import Network
from edge_client.obtain import Obtain
from edge_client.store import Store
from schemas.measure import ModelFile
from schemas.transfer import Reply

_BATCHES = 1 << 16
"""Numbers of requests that one download may use up."""


class Fetcher:
    """Brings files into the store. Used from one thread."""

    def __init__(
        self,
        network: Network,
        store: Store,
        files: Iterable[ModelFile],
        *,
        owner: str,
        first_batch: int,
        active: str | None = None,
        server: Server | None = None,
    ) -> None:
        """Prepare.

        Args:
            network: the connection.
            store: where the files go.
            files: what is wanted; a file named twice is fetched once.
            owner: the attempt, to which fetched bytes are counted.
            first_batch: number of the first request.
            active: the file of the model that serves.
            server: for HTTPS; None if the device was not told to use it.
        """
        self._network, self._store, self._owner = network, store, owner
        self._active, self._server = active, server
        self._batches = itertools.count(first_batch, _BATCHES)
        self._files = {file.sha256: file for file in files}
        self._todo = list(self._files.values())
        self._later = sum(store.fetched_for(file, owner) for file in self._todo[1:])
        self._fetched = 0
        self._now: Obtain | None = self._next()

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self._files.values())

    @property
    def done(self) -> int:
        """Bytes that are there and verified."""
        left = sum(file.size for file in self._todo)
        return self.total - left + (0 if self._now is None else self._now.there)

    @property
    def fetched(self) -> int:
        """Bytes that came over the network for this attempt, patches and broadcasts included."""
        now = 0 if self._now is None else self._now.fetched
        return self._fetched + now + self._later

    @property
    def complete(self) -> bool:
        """Whether every file is there."""
        return not self._todo

    def pump(self, now: float) -> None:
        """Do what can be done without waiting.

        Raises:
            UpdateError: the transfer has failed.
        """
        while self._now is not None:
            self._now.pump(now)
            if not self._now.ended:
                return
            self._fetched += self._now.fetched
            self._todo.pop(0)
            self._later = sum(self._store.fetched_for(f, self._owner) for f in self._todo[1:])
            self._now = self._next()

    def due(self, now: float) -> float:
        """When to call ``pump`` again at the latest; a nudge may come before."""
        return now if self._now is None else self._now.due(now)

    def reply(self, reply: Reply, now: float) -> None:
        """Take an answer.

        Raises:
            UpdateError: the transfer has failed.
        """
        if self._now is not None:
            self._now.reply(reply, now)
            self.pump(now)

    def connected(self) -> None:
        """What is missing may be asked for at once."""
        if self._now is not None:
            self._now.connected()

    def disconnected(self) -> None:
        """What was asked for on a lost connection does not come any more."""
        if self._now is not None:
            self._now.disconnected()

    def close(self) -> None:
        """Save what is there, for a later attempt or after a restart."""
        now, self._now = self._now, None
        if now is not None:
            now.close()

    def _next(self) -> Obtain | None:
        if not self._todo:
            return None
        return Obtain(
            self._network,
            self._store,
            self._todo[0],
            owner=self._owner,
            batches=self._batches,
            active=self._active,
            server=self._server,
        )
