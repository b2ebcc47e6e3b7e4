"""Fetching the files of a version: the pure pull, the store and the wire together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edge_client.errors import TransferError
from edge_client.partial import Partial, split_leaves
from edge_client.store import Store
from edge_client.transfer import Bucket, Pull, Taken
from schemas.measure import ModelFile
from schemas.transfer import CHUNK_BYTES, Need, Reply, decode_chunk

ASK_AGAIN_SECONDS = 3.0
SEND_AGAIN_SECONDS = 1.0
"""After a request that could not be sent: without a connection there is no hurry."""

MAX_ERRORS = 5


@dataclass(slots=True)
class Asking:
    """A question that is asked again until it is answered."""

    every: float = ASK_AGAIN_SECONDS
    next_at: float = 0.0
    errors: int = 0

    def due(self, now: float) -> bool:
        """Whether to ask now; if so, the next time is set."""
        if now < self.next_at:
            return False
        self.next_at = now + self.every
        return True

    def unsent(self, now: float) -> None:
        """The question could not be sent; ask again soon, not at once."""
        self.next_at = now + SEND_AGAIN_SECONDS

    def refused(self, why: str) -> None:
        """Count an answer that says no.

        Raises:
            TransferError: it was one too many.
        """
        self.errors += 1
        if self.errors >= MAX_ERRORS:
            msg = f"the server has it not: {why[:200]}"
            raise TransferError(msg)


class Fetcher:
    """Brings files into the store, one after the other. Used from one thread."""

    def __init__(
        self,
        store: Store,
        files: Iterable[ModelFile],
        *,
        owner: str,
        send: Callable[[Need], bool],
        bucket: Bucket | None,
        first_batch: int,
    ) -> None:
        """Prepare.

        Args:
            store: where the files go.
            files: what is wanted; a file named twice is fetched once.
            owner: the attempt, to which fetched bytes are counted.
            send: publishes a request; False when there is no connection.
            bucket: limits the rate.
            first_batch: number of the first request.
        """
        self._store, self._owner, self._send, self._bucket = store, owner, send, bucket
        self._files = {file.sha256: file for file in files}
        self._todo = list(self._files.values())
        self._batch = first_batch
        self._partial: Partial | None = None
        self._pull: Pull | None = None
        self._leaves = Asking()
        self._refusals = Asking()
        self._send_again_at = 0.0
        self.fetched = sum(store.fetched_for(file, owner) for file in self._todo)

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self._files.values())

    @property
    def done(self) -> int:
        """Bytes that are there and verified."""
        left = sum(file.size for file in self._todo)
        if self._partial is not None:
            have, size = self._partial.have, self._partial.file.size
            arrived = len(have) * CHUNK_BYTES
            if len(self._partial.leaves) - 1 in have:
                arrived -= -size % CHUNK_BYTES
            left -= arrived
        return self.total - left

    @property
    def complete(self) -> bool:
        """Whether every file is there."""
        return not self._todo

    def pump(self, now: float) -> None:
        """Do what can be done without waiting.

        Raises:
            UpdateError: the transfer has failed.
        """
        while self._todo and self._advance(now):
            pass

    def due(self, now: float) -> float:
        """When to call ``pump`` again at the latest."""
        if self._pull is None:
            return self._leaves.next_at
        if now < self._send_again_at:
            return self._send_again_at
        return max(now, self._pull.due(now))

    def reply(self, reply: Reply, now: float) -> None:
        """Take an answer.

        Raises:
            UpdateError: the transfer has failed.
        """
        if not self._todo or reply.sha256 != self._todo[0].sha256:
            return
        if reply.error is not None:
            self._refusals.refused(reply.error)
        elif reply.kind == "leaves" and self._pull is None and reply.leaves is not None:
            try:
                leaves = split_leaves(bytes.fromhex(reply.leaves))
            except ValueError:
                self._refusals.refused("chunk digests are no hex")
                return
            self._open(leaves)
        self.pump(now)

    def chunk(self, payload: bytes, now: float) -> None:
        """Take a chunk.

        Raises:
            UpdateError: the transfer has failed.
        """
        chunk = decode_chunk(payload)
        if chunk is None or self._pull is None or self._partial is None:
            return
        before = self._pull.received_bytes
        taken = self._pull.take(chunk, now)
        counted = self._pull.received_bytes - before
        self.fetched += counted
        self._partial.fetched += counted
        if taken is Taken.NEW:
            self._partial.write(chunk.index, chunk.data)
            self._refusals.errors = 0
        self.pump(now)

    def connected(self) -> None:
        """What is missing may be asked for at once."""
        self._send_again_at = self._leaves.next_at = 0.0

    def disconnected(self) -> None:
        """What was asked for on a lost connection does not come any more."""
        if self._pull is not None:
            self._pull.give_back()
        self._leaves.next_at = 0.0

    def close(self) -> None:
        """Save what is there, for a later attempt or after a restart."""
        partial, self._partial, self._pull = self._partial, None, None
        if partial is not None:
            partial.close()

    def _advance(self, now: float) -> bool:
        """Work on the first file; True when it is complete and the next one follows."""
        file = self._todo[0]
        if self._pull is None or self._partial is None:
            if self._store.has(file.sha256):
                self._store.check(file)
                self._todo.pop(0)
                return True
            if not self._leaves.due(now):
                return False
            leaves = self._store.known_leaves(file)
            if leaves is None:
                if not self._send(_ask_leaves(file)):
                    self._leaves.unsent(now)
                return False
            self._open(leaves)
            return True
        if self._pull.done:
            self._finish()
            return True
        self._request(self._pull, self._partial, now)
        return False

    def _request(self, pull: Pull, partial: Partial, now: float) -> None:
        partial.save_if_due(now)
        pull.tick(now)
        if pull.failure is not None:
            raise TransferError(pull.failure)
        if now < self._send_again_at or (need := pull.ask(now)) is None:
            return
        if self._send(need):
            self._batch = need.batch + 1
        else:
            pull.unsent(need)
            self._send_again_at = now + SEND_AGAIN_SECONDS

    def _open(self, leaves: tuple[bytes, ...]) -> None:
        file = self._todo[0]
        counted = self._store.fetched_for(file, self._owner)
        partial = self._store.open_partial(file, leaves, self._owner)
        self.fetched += partial.fetched - counted
        self._partial = partial
        self._pull = Pull(
            sha256=file.sha256,
            size=file.size,
            leaves=leaves,
            have=partial.have,
            bucket=self._bucket,
            first_batch=self._batch,
        )

    def _finish(self) -> None:
        partial, self._partial, self._pull = self._partial, None, None
        if partial is not None:
            partial.finish(self._store.home.blobs)
            self._todo.pop(0)
            self._leaves = Asking()


def _ask_leaves(file: ModelFile) -> Need:
    return Need(kind="leaves", sha256=file.sha256)
