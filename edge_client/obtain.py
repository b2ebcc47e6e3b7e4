"""One file by whichever ways there are (docs/architecture.md, "Ways")."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from enum import Enum

from edge_client.at_hand import copy_chunks
from edge_client.chore import Chore, Going
from edge_client.download import Download
from edge_client.https import Server
from edge_client.linked import Linked
from edge_client.network import Network
from edge_client.patching import Patching
from edge_client.store import Store
from edge_client.ways import Next
from schemas.measure import ModelFile
from schemas.transfer import CHUNK_BYTES, Reply, Way

log = logging.getLogger(__name__)

IDLE_SECONDS = 1.0
STOP_SECONDS = 2.0


class _Stage(Enum):
    CHECK = "check"  # a complete file is hashed again
    LOOK = "look"  # at what is on the device
    CHOOSE = "choose"
    WAIT = "wait"  # for a patch that is being made
    PATCH = "patch"
    LINK = "link"
    NETWORK = "network"
    FINISH = "finish"
    END = "end"


class Obtain:
    """Brings one file into the store. Used from one thread."""

    def __init__(
        self, network: Network, store: Store, file: ModelFile, *,
        owner: str, batches: Iterator[int], active: str | None, server: Server | None,
    ) -> None:  # fmt: skip
        """Prepare.

        Args:
            network: the connection.
            store: where the file goes.
            file: what is wanted.
            owner: the attempt, to which fetched bytes are counted.
            batches: numbers from which requests may count on.
            active: the file of the model that serves.
            server: for HTTPS; None if the device was not told to use it.
        """
        self.file = file
        self._network, self._store, self._owner = network, store, owner
        self._batches, self._server = batches, server
        self._complete = store.has(file.sha256)
        self._stage = _Stage.CHECK if self._complete else _Stage.LOOK
        self._held = () if self._complete else store.held(file, first=active)
        self._download = self._new_download()
        self._chore: Chore[int] | Chore[None] | None = None
        self._patching: Patching | None = None
        self._linked: Linked | None = None
        self._wait_until = 0.0

    @property
    def ended(self) -> bool:
        """Whether the file is complete."""
        return self._stage is _Stage.END

    @property
    def there(self) -> int:
        """Bytes that are there and verified."""
        return self.file.size if self._complete else self._download.there

    @property
    def fetched(self) -> int:
        """Bytes that came over the network for this attempt, patches included."""
        patch = 0 if self._patching is None else self._patching.fetched
        return self._download.fetched + patch

    def pump(self, now: float) -> None:
        """Do what can be done without waiting.

        Raises:
            UpdateError: the transfer has failed.
        """
        before = None
        while self._stage is not before and not self.ended:
            before = self._stage
            if before not in {_Stage.CHECK, _Stage.FINISH}:
                self._download.pump(now)
                if self._download.whole:
                    self._whole()
            self._step(now)

    def due(self, now: float) -> float:
        """When to call ``pump`` again at the latest."""
        if self._stage in {_Stage.CHECK, _Stage.FINISH}:
            return now + IDLE_SECONDS  # a nudge tells its end
        times = [self._download.due(now)]
        if self._patching is not None:
            times.append(self._patching.due(now))
        if self._stage is _Stage.WAIT:
            times.append(self._wait_until)
        return max(now, min(times))

    def reply(self, reply: Reply, now: float) -> None:
        """Take an answer; one about another file is dropped.

        Raises:
            UpdateError: the transfer has failed.
        """
        if reply.sha256 == self.file.sha256:
            self._download.reply(reply, now)
        elif self._patching is not None and reply.sha256 == self._patching.sha256:
            self._patching.reply(reply, now)

    def connected(self) -> None:
        """What is missing may be asked for at once."""
        self._download.connected()
        if self._patching is not None:
            self._patching.connected()

    def disconnected(self) -> None:
        """What was asked for on a lost connection does not come any more."""
        self._download.disconnected()
        if self._patching is not None:
            self._patching.disconnected()

    def close(self) -> None:
        """Save what is there, for a later attempt or after a restart."""
        if self._chore is not None:
            self._chore.stop(STOP_SECONDS)
        if self._patching is not None:
            self._patching.close()
        if self._linked is not None:
            self._linked.close()
        self._download.close()

    def _new_download(self) -> Download:
        takes = [Way.BROADCAST]
        if self.file.size > CHUNK_BYTES:
            takes += [Way.PATCH] if self._held else []
            takes += [Way.HTTPS] if self._server is not None else []
        return Download(
            self._network,
            self._store,
            self.file,
            owner=self._owner,
            first_batch=next(self._batches),
            held=self._held if Way.PATCH in takes else (),
            takes=tuple(takes),
        )

    def _step(self, now: float) -> None:
        match self._stage:
            case _Stage.CHECK:
                self._check()
            case _Stage.LOOK:
                self._look()
            case _Stage.WAIT if now >= self._wait_until:
                self._download.ask_again()
                self._stage = _Stage.CHOOSE
            case _Stage.CHOOSE if self._download.ready:
                self._choose(now)
            case _Stage.PATCH if self._patching is not None:
                self._patching.pump(now)
                self._stage = _Stage.CHOOSE if self._patching.ended else _Stage.PATCH
            case _Stage.LINK if self._linked is not None and self._linked.ended:
                self._count_waste(self._linked)
                self._linked = None
                self._stage = _Stage.CHOOSE
            case _Stage.NETWORK:
                self._download.start(now)
            case _Stage.FINISH:
                if self._over():
                    came, size = self.fetched, self.file.size
                    log.info("%s is there: %d bytes came for %d", self.file.path, came, size)
                    self._complete = True
                    self._stage = _Stage.END
            case _:
                pass

    def _choose(self, now: float) -> None:
        download, ways = self._download, self._download.ways
        partial = download.partial
        assert partial is not None  # noqa: S101 - it is ready
        match ways.choose(self.file.size - self.there):
            case Next.PATCH if ways.patch is not None:
                download.ways = ways.gone(Next.PATCH)
                left = self.file.size - self.there
                log.info("a patch of %d bytes for %d of %s", ways.patch.size, left, self.file.path)
                self._patching = Patching(
                    self._network, self._store, ways.patch, partial, download.sink,
                    owner=self._owner, first_batch=next(self._batches),
                )  # fmt: skip
                self._stage = _Stage.PATCH
            case Next.HTTPS if ways.https is not None and self._server is not None:
                download.ways = ways.gone(Next.HTTPS)
                self._linked = Linked(
                    self._server, ways.https, partial, download.sink,
                    rate=self._network.bandwidth, nudge=self._network.nudge,
                )  # fmt: skip
                self._stage = _Stage.LINK
            case Next.WAIT:
                download.ways, seconds = ways.wait()
                self._wait_until = now + seconds
                self._stage = _Stage.WAIT
            case _:
                self._stage = _Stage.NETWORK

    def _check(self) -> None:
        """Hash the complete file again; a damaged one is removed, and fetched anew."""
        file = self.file
        if self._chore is None:

            def work(_going: Going) -> None:
                self._store.check(file)

            self._chore = Chore(work, spawn=self._network.spawn, nudge=self._network.nudge)
        if self._over():
            self._stage = _Stage.END

    def _look(self) -> None:
        """Copy what other files on the device hold of this one."""
        download, partial = self._download, self._download.partial
        if self._chore is None:
            if partial is None or not download.resumed:
                return
            paths = tuple(self._store.home.blobs / name for name in self._held)
            partial.making = True

            def work(going: Going) -> int:
                partial.save()
                try:
                    return copy_chunks(partial, paths, self._store.leaves, going, download.sink)
                finally:
                    partial.making = False
                    partial.save()

            self._chore = Chore(work, spawn=self._network.spawn, nudge=self._network.nudge)
        if self._over():
            self._stage = _Stage.CHOOSE

    def _over(self) -> bool:
        """Whether the present chore has ended; what it raised is raised."""
        if self._chore is None or not self._chore.ended:
            return False
        chore, self._chore = self._chore, None
        chore.result()
        return True

    def _whole(self) -> None:
        """Every chunk is there, whichever way it came."""
        if self._stage is _Stage.LOOK and self._chore is not None:
            return  # it ends by itself, and soon
        if self._patching is not None:
            self._patching.conclude()
        if self._linked is not None:
            self._linked.close()
        self._chore = self._download.finish()
        self._stage = _Stage.FINISH

    def _count_waste(self, linked: Linked) -> None:
        if self._download.partial is not None:
            self._download.partial.fetched += linked.wasted
