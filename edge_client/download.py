"""One file over MQTT: its leaves, the offers that come with them, a broadcast or the pull."""

from __future__ import annotations

import logging

from edge_client.chore import Chore, Going
from edge_client.errors import TransferError
from edge_client.files import disk_errors
from edge_client.inlet import Sink
from edge_client.leaves import split_leaves
from edge_client.network import SEND_AGAIN_SECONDS, Asking, Network
from edge_client.partial import Partial
from edge_client.store import Store
from edge_client.transfer import Pull
from edge_client.ways import Listening, Ways, bearable
from schemas.measure import ModelFile
from schemas.transfer import MAX_WINDOW, Ask, BroadcastOffer, Reply, Way

IDLE_SECONDS = 1.0
CLOSE_SECONDS = 0.5

log = logging.getLogger(__name__)


class Download:
    """Brings one file into a partial one. Used from one thread."""

    def __init__(
        self,
        network: Network,
        store: Store,
        file: ModelFile,
        *,
        owner: str,
        first_batch: int,
        held: tuple[str, ...] = (),
        takes: tuple[Way, ...] = (Way.BROADCAST,),
    ) -> None:
        """Prepare.

        Args:
            network: the connection.
            store: where the file goes.
            file: what is wanted.
            owner: the attempt, to which fetched bytes are counted.
            first_batch: number of the first request.
            held: complete files from which it may be made.
            takes: ways for which offers are asked.
        """
        self.file, self.ways = file, Ways()
        self.partial: Partial | None = None
        self._network, self._store, self._owner = network, store, owner
        self._first_batch, self._held, self._takes = first_batch, held, takes
        self._pull: Pull | None = None
        self._sink: Sink | None = None
        self._asking = Asking()
        self._answered = False
        self._looked = self._started = False
        self._listening: Listening | None = None
        self._resuming: Chore[None] | None = None
        self._saving: Chore[None] | None = None
        self._send_again_at = 0.0
        self._fetched_before = store.fetched_for(file, owner)

    @property
    def ready(self) -> bool:
        """Whether it is known what is there, and what is offered."""
        return self._answered and self._pull is not None

    @property
    def resumed(self) -> bool:
        """Whether it is known what is there."""
        return self._pull is not None

    @property
    def whole(self) -> bool:
        """Whether every chunk is there."""
        return self._pull is not None and self._pull.done

    @property
    def there(self) -> int:
        """Bytes that are there and verified."""
        return 0 if self.partial is None else self.partial.bytes_there

    @property
    def fetched(self) -> int:
        """Bytes that came over the network for this attempt."""
        if self.partial is None or self._pull is None:
            return self._fetched_before
        return self.partial.fetched

    @property
    def sink(self) -> Sink:
        """Where other ways than this one put chunks, once it is ready."""
        assert self._sink is not None  # noqa: S101 - whoever asks has seen ``ready``
        return self._sink

    def start(self, now: float) -> None:
        """Use the network from now on: a broadcast, if there is one, and else the pull.

        Raises:
            UpdateError: the transfer has failed.
        """
        if self._started:
            return
        self._started = True
        offer = self.ways.broadcast
        if (offer is None or not self._listen(offer, now)) and self._pull is not None:
            self._pull.resume()
        self.pump(now)

    def ask_again(self) -> None:
        """Ask for offers once more; until the answer it is not ready."""
        self._answered = False
        self._asking = Asking()

    def pump(self, now: float) -> None:
        """Do what can be done without waiting.

        Raises:
            UpdateError: the transfer has failed.
        """
        if not self._answered:
            self._ask(now)
        if not self._looked:
            self._looked = True
            leaves = self._store.known_leaves(self.file)
            if leaves is not None:
                self._open(leaves)
        if self._resuming is not None and self._resuming.ended:
            self._resumed()
        if self._pull is not None:
            self._absorb(self._pull)
        if self._pull is not None and self._started and not self._pull.done:
            self._request(self._pull, now)
        self._save(now)

    def due(self, now: float) -> float:
        """When to call ``pump`` again at the latest; a nudge may come before."""
        times = [now + IDLE_SECONDS]
        if not self._answered:
            times.append(self._asking.next_at)
        if self._listening is not None:
            times.append(self._listening.due())
        elif self._pull is not None and self._started and not self._pull.done:
            times.append(max(self._send_again_at, self._pull.due(now)))
        return max(now, min(times))

    def reply(self, reply: Reply, now: float) -> None:
        """Take an answer about this file.

        Raises:
            UpdateError: the transfer has failed.
        """
        if reply.kind == "broadcast":
            if reply.broadcast is not None and self._started and not self.whole:
                self._listen(reply.broadcast, now)
        elif reply.error is not None:
            self._asking.refused(reply.error)
        elif reply.kind == "leaves" and reply.leaves is not None and not self._answered:
            self._take_leaves(reply, reply.leaves)

    def connected(self) -> None:
        """What is missing may be asked for at once."""
        self._send_again_at = self._asking.next_at = 0.0

    def disconnected(self) -> None:
        """What was asked for on a lost connection does not come any more."""
        if self._pull is not None:
            self._pull.give_back()
        self._asking.next_at = 0.0

    def finish(self) -> Chore[None]:
        """Move the whole file among the complete ones, in a thread of its own."""
        partial = self.partial
        assert partial is not None  # noqa: S101 - it is whole
        self._let_go()
        blobs = self._store.home.blobs

        def work(_going: Going) -> None:
            partial.finish(blobs)

        return Chore(work, spawn=self._network.spawn, nudge=self._network.nudge)

    def close(self) -> None:
        """Save what is there, for a later attempt or after a restart."""
        if self._resuming is not None:
            self._resuming.stop(CLOSE_SECONDS)
        try:
            self._let_go()
        finally:
            partial, self.partial = self.partial, None
            if partial is not None:
                partial.close()

    def _let_go(self) -> None:
        self._network.inlet.close(self.file.sha256)
        if self._listening is not None:
            self._listening = None
            self._network.listen(None)
        if self._pull is not None:
            self._absorb(self._pull)

    def _ask(self, now: float) -> None:
        if self._asking.due(now):
            ask = Ask(kind="leaves", sha256=self.file.sha256, held=self._held, takes=self._takes)
            if not self._network.ask(ask):
                self._asking.unsent(now)

    def _take_leaves(self, reply: Reply, hexes: str) -> None:
        if self.partial is None:
            try:
                leaves = split_leaves(bytes.fromhex(hexes))
            except ValueError:
                self._asking.refused("chunk digests are no hex")
                return
            self._open(leaves)
        self._answered = True
        self.ways = self.ways.offered(reply)

    def _open(self, leaves: tuple[bytes, ...]) -> None:
        partial = self._store.open_partial(self.file, leaves, self._owner)
        self.partial = partial
        self._resuming = Chore(partial.resume, spawn=self._network.spawn, nudge=self._network.nudge)

    def _resumed(self) -> None:
        resuming, self._resuming, partial = self._resuming, None, self.partial
        if resuming is None or partial is None:
            return
        resuming.result()
        self._pull = Pull(
            sha256=self.file.sha256,
            size=self.file.size,
            have=partial.have,
            bucket=self._network.bucket,
            first_batch=self._first_batch,
        )
        self._pull.hold()
        self._sink = Sink(partial, clock=self._network.clock, nudge=self._network.nudge)
        self._network.inlet.open(self.file.sha256, self._sink)

    def _absorb(self, pull: Pull) -> None:
        """Account for what came."""
        sink, partial = self._sink, self.partial
        if sink is None or partial is None:
            return
        for came in sink.told():
            pull.take(came)
            partial.fetched += came.size
            if came.batch is None and self._listening is not None:
                self._listening.heard(came.at)
            if came.sound:
                self._asking.errors = 0
        if sink.error is not None:
            error, sink.error = sink.error, None
            with disk_errors(self.file.path):
                raise error

    def _request(self, pull: Pull, now: float) -> None:
        if self._listening is not None:
            if not self._listening.over(now):
                return
            self._listening = None
            self._network.listen(None)
            pull.resume()
        pull.tick(now)
        if pull.failure is not None:
            raise TransferError(pull.failure)
        need = None if now < self._send_again_at else pull.ask(now)
        if need is not None and not self._network.need(need):
            pull.unsent(need)
            self._send_again_at = now + SEND_AGAIN_SECONDS
        if pull.outstanding:
            # Also where nothing was asked for: the window may have shrunk, and fewer may be left
            # to come than were waited for before.
            self.sink.expect(max(1, pull.outstanding - pull.window // 2))

    def _listen(self, offer: BroadcastOffer, now: float) -> bool:
        """Listen to a broadcast, if the device may; whether it does."""
        if not bearable(offer, self._network.bandwidth):
            return False
        if self._listening is None:
            log.info("listening to a broadcast of %s", self.file.path)
            self._network.listen(self.file.sha256)
        self._listening = Listening.begin(offer, self.file.size, now)
        if self._pull is not None:
            self._pull.hold()
            self.sink.expect(MAX_WINDOW)
        return True

    def _save(self, now: float) -> None:
        partial, saving = self.partial, self._saving
        if saving is not None:
            if not saving.ended:
                return
            self._saving = None
            saving.result()
        if partial is not None and self._pull is not None and partial.save_due(now):

            def work(_going: Going) -> None:
                partial.save()

            self._saving = Chore(work, spawn=self._network.spawn, nudge=lambda: None)
