"""A file made of another one: the patch is fetched like any file, then applied in a thread."""

from __future__ import annotations

import logging

from edge_client.chore import Chore, Going
from edge_client.download import Download
from edge_client.errors import EdgeError, UpdateError
from edge_client.inlet import Sink
from edge_client.network import Network
from edge_client.partial import Partial
from edge_client.patch import apply
from edge_client.store import Store
from schemas.measure import ModelFile
from schemas.transfer import PatchOffer, Reply

STOP_SECONDS = 2.0

log = logging.getLogger(__name__)


class Patching:
    """From an offer to its end. Whatever fails ends it, for the file can be had otherwise."""

    def __init__(
        self, network: Network, store: Store, offer: PatchOffer, target: Partial, sink: Sink,
        *, owner: str, first_batch: int,
    ) -> None:  # fmt: skip
        """Begin.

        Args:
            network: the connection.
            store: where the base is, and where the patch goes.
            offer: names both.
            target: the file to be made.
            sink: takes its chunks.
            owner: the attempt, to which the patch's bytes are counted.
            first_batch: number of the first request.
        """
        self.ended = False
        self._network, self._target, self._sink = network, target, sink
        self._base = store.home.blobs / offer.base
        file = ModelFile(
            path="patch", size=offer.size, sha256=offer.sha256, leaves_sha256=offer.leaves_sha256
        )
        self._download = Download(network, store, file, owner=owner, first_batch=first_batch)
        self._applying: Chore[None] | None = None
        if not store.has(offer.base) or not store.has_room(offer.size, beside=target.file):
            self._give_up("its base is not here, or there is no room for it")

    @property
    def sha256(self) -> str:
        """Of the patch."""
        return self._download.file.sha256

    @property
    def fetched(self) -> int:
        """Bytes of the patch that came over the network, until they are counted to the file."""
        return 0 if self.ended else self._download.fetched

    def pump(self, now: float) -> None:
        """Do what can be done without waiting."""
        if self.ended:
            return
        try:
            self._pump(now)
        except (EdgeError, OSError) as error:
            self._give_up(str(error))
        except Exception as error:  # noqa: BLE001 - nobody signed it, and memory may be short
            self._give_up(f"{type(error).__name__}: {error}")

    def reply(self, reply: Reply, now: float) -> None:
        """Take an answer about the patch."""
        if not self.ended:
            try:
                self._download.reply(reply, now)
            except UpdateError as error:
                self._give_up(str(error))

    def due(self, now: float) -> float:
        """When to call ``pump`` again at the latest."""
        return self._download.due(now)

    def connected(self) -> None:
        """What is missing may be asked for at once."""
        self._download.connected()

    def disconnected(self) -> None:
        """What was asked for on a lost connection does not come any more."""
        self._download.disconnected()

    def conclude(self) -> None:
        """The file is whole, or to be had otherwise: the patch is needed no more."""
        if self._applying is not None:
            self._applying.stop(STOP_SECONDS)
        if not self.ended:
            self._end()

    def close(self) -> None:
        """Let go; what was fetched of the patch stays, for the next time."""
        if self._applying is not None:
            self._applying.stop(STOP_SECONDS)
        if not self.ended:
            self._download.close()

    def _pump(self, now: float) -> None:
        self._download.pump(now)
        if self._applying is not None:
            if self._applying.ended:
                self._applying.result()
                self._end()
        elif self._download.whole:
            self._apply()
        elif self._download.ready:
            self._download.start(now)

    def _apply(self) -> None:
        patch, target, sink, base = self._download.partial, self._target, self._sink, self._base
        assert patch is not None  # noqa: S101 - it is whole
        target.making = True

        def work(going: Going) -> None:
            target.save()

            def write(index: int, data: bytes) -> bool:
                if not going():
                    msg = "it is given up"
                    raise UpdateError(msg)
                if target.save_due(self._network.clock()):
                    target.save()
                return sink.take(index, data, None, fetched=False)

            with patch.path.open("rb") as patch_file, base.open("rb") as base_file:
                apply(patch_file, base_file, wanted=target.wants, write=write)

        self._applying = Chore(work, spawn=self._network.spawn, nudge=self._network.nudge)

    def _give_up(self, why: str) -> None:
        log.warning("the patch is of no use: %s", why)
        self._end()

    def _end(self) -> None:
        """Count its bytes to the file, then remove it."""
        fetched, partial = self._download.fetched, self._download.partial
        self.ended = True
        self._target.making = False
        self._target.fetched += fetched
        try:
            self._target.save()
            self._download.close()
            if partial is not None:
                partial.remove()
        except (EdgeError, OSError) as error:
            log.warning("the patch could not be put away: %s", error)
