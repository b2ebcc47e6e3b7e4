"""The windowed pull of one file: what to ask for, and what to make of what comes.

No IO and no clock: ``now`` is seconds of any steady clock. Within a batch chunks come
in order, so a gap is a loss and is asked for again at once; a timer is the backstop. Chunks
may come by other ways meanwhile, a broadcast above all; nothing is asked for while it is held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from edge_client.pace import Pace
from schemas.transfer import CHUNK_BYTES, MAX_WINDOW, Need, Range, chunk_count

MIN_TIMEOUT = 2.0
MAX_TIMEOUT = 5.0
SLOWEST_TIMEOUT = 60.0
"""On a link where chunks come seldom, the timer waits for four of them, up to this."""

MAX_SILENT_TIMEOUTS = 60
MAX_BAD_PER_CHUNK = 8


class Taken(Enum):
    """What became of a chunk."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CORRUPT = "corrupt"


@dataclass(frozen=True, slots=True)
class Came:
    """A chunk that was looked at.

    size: bytes that it took on the network. sound: its digest is the leaf, and it is written.
    at: when it came. batch: of the request that it answers; None when it is no answer.
    """

    index: int
    size: int
    sound: bool
    at: float
    batch: int | None


@dataclass(slots=True)
class Bucket:
    """A token bucket: at most ``rate`` bytes a second, in bursts of a chunk or more."""

    rate: float
    level: float = CHUNK_BYTES
    at: float | None = None

    def chunks(self, now: float) -> int:
        """How many chunks may be asked for now."""
        if self.at is not None:
            self.level = min(self.level + (now - self.at) * self.rate, self._most())
        self.at = now
        return int(self.level // CHUNK_BYTES)

    def spend(self, chunks: int) -> None:
        """Account for chunks that are asked for."""
        self.level -= chunks * CHUNK_BYTES

    def refund(self, chunks: int) -> None:
        """Take back chunks that were not asked for after all."""
        self.level += chunks * CHUNK_BYTES

    def ready_at(self, now: float) -> float:
        """When the next chunk may be asked for."""
        return now + max(0.0, (CHUNK_BYTES - self.level) / self.rate)

    def _most(self) -> float:
        return max(CHUNK_BYTES, self.rate / 4)


@dataclass(slots=True)
class _Batch:
    asked_at: float
    waiting: deque[int]
    answered: bool = False


class Pull:
    """The transfer of one file, from the chunks that are there to all of them."""

    def __init__(
        self,
        *,
        sha256: str,
        size: int,
        have: Iterable[int] = (),
        bucket: Bucket | None = None,
        first_batch: int = 0,
    ) -> None:
        """Begin.

        Args:
            sha256: of the whole file, in hex.
            size: in bytes.
            have: indices of chunks that are on the disk and verified.
            bucket: limits the rate of requests.
            first_batch: number of the first request; a new run must not reuse those of
                an older one whose chunks may still be on their way.
        """
        self.sha256 = sha256
        self.size = size
        self.received_bytes = 0
        self.corrupt = 0
        self.timeouts = 0
        self.failure: str | None = None
        self._chunks = chunk_count(size)
        self._have = set(have)
        self._needed = deque(i for i in range(self._chunks) if i not in self._have)
        self._held = False
        self._asked: dict[int, int] = {}
        self._batches: dict[int, _Batch] = {}
        self._next_batch = first_batch
        self._bad: dict[int, int] = {}
        self._bucket = bucket
        self._pace = Pace()
        self._silent = 0
        self._given_up: deque[int] = deque(maxlen=MAX_WINDOW)  # requests
        self._patience = MIN_TIMEOUT
        self._heard_at: float | None = None

    @property
    def done(self) -> bool:
        """Whether every chunk is there."""
        return not self._needed and not self._asked

    @property
    def window(self) -> int:
        """Chunks that may be outstanding at once."""
        return self._pace.window

    @property
    def outstanding(self) -> int:
        """Chunks that are asked for and have not come."""
        return len(self._asked)

    def ask(self, now: float) -> Need | None:
        """The next request, or None when there is nothing to ask for now."""
        count = self._wanted()
        if self._bucket is not None:
            count = min(count, self._bucket.chunks(now))
        if count <= 0:
            return None
        if self._bucket is not None:
            self._bucket.spend(count)
        indices = sorted(self._needed.popleft() for _ in range(count))
        batch = self._next_batch
        self._next_batch = (batch + 1) % 2**32
        self._batches[batch] = _Batch(now, deque(indices))
        self._asked.update(dict.fromkeys(indices, batch))
        if self._heard_at is None or len(self._asked) == count:
            self._heard_at = now
        asked = ranges(indices)
        return Need(kind="chunks", sha256=self.sha256, batch=batch, ranges=asked)

    def take(self, came: Came) -> Taken:
        """Account for a chunk that came."""
        self.received_bytes += came.size
        if came.batch is not None:
            self._heard_at = came.at
            if came.batch in self._given_up:
                # It was only late: where many wait, asking again too soon takes what others need.
                self._given_up.clear()
                self._patience = min(2 * self._patience, SLOWEST_TIMEOUT)
            self._close_gap(came.index, came.batch, came.at)
        if came.index in self._have:
            return Taken.DUPLICATE
        self._forget(came.index)
        if not came.sound and came.batch is None and not came.size:
            # Made or copied here: what does not fit is pulled, and is no fault of the network's.
            self._needed.appendleft(came.index)
            return Taken.CORRUPT
        if not came.sound:
            self._again(came.index)
            return Taken.CORRUPT
        self._have.add(came.index)
        self._silent = 0
        if came.batch is not None:
            self._pace.arrived(came.at)
        return Taken.NEW

    def hold(self) -> None:
        """Ask for nothing more; what is outstanding may still come."""
        self._held = True

    def resume(self) -> None:
        """Ask again, also for what was outstanding when it was held."""
        if self._held:
            self._held = False
            self.give_back()

    def tick(self, now: float) -> None:
        """Let the timer look: silence returns all that is outstanding to the list."""
        if self._asked and not self._held and now >= self._deadline(now):
            self.timeouts += 1
            self._silent += 1
            self._pace.stalled()
            self._given_up.extend(self._batches)
            self.give_back()
            if self._silent >= MAX_SILENT_TIMEOUTS:
                self.failure = f"no chunk came in {self._silent} requests"

    def due(self, now: float) -> float:
        """When ``tick`` and ``ask`` should be called again at the latest."""
        times = [self._deadline(now)] if self._asked and not self._held else []
        if self._bucket is not None and self._wanted():
            times.append(self._bucket.ready_at(now))
        return min(times, default=now)

    def _deadline(self, now: float) -> float:
        patience = min(MIN_TIMEOUT * 1.5 ** min(self._silent, 8), MAX_TIMEOUT)
        patience = max(patience, self._patience)
        if self._pace.rate:
            patience = max(patience, min(4 / self._pace.rate, SLOWEST_TIMEOUT))
        return (now if self._heard_at is None else self._heard_at) + patience

    def give_back(self) -> None:
        """Put everything outstanding back on the list, as after a lost connection."""
        lost = [index for batch in self._batches.values() for index in batch.waiting]
        self._batches.clear()
        self._asked.clear()
        self._needed.extendleft(reversed(lost))

    def unsent(self, need: Need) -> None:
        """Undo the last ``ask``: its chunks, its number and its share of the rate."""
        indices = self._batches.pop(need.batch).waiting
        for index in indices:
            del self._asked[index]
        self._needed.extendleft(reversed(indices))
        self._next_batch = need.batch
        if self._bucket is not None:
            self._bucket.refund(len(indices))

    def _wanted(self) -> int:
        """How many chunks the window lets it ask for; half of it is to be free first."""
        free = self._pace.window - len(self._asked)
        if not self._needed or self._held or self.failure or free <= 0:
            return 0
        if self._asked and free * 2 < self._pace.window and not self._urgent():
            return 0
        return min(free, len(self._needed))

    def _urgent(self) -> bool:
        """Whether a chunk that was lost waits to be asked for again."""
        return self._needed[0] < next(iter(self._asked))

    def _close_gap(self, index: int, number: int, now: float) -> None:
        batch = self._batches.get(number)
        if batch is None:
            return
        if not batch.answered:
            batch.answered = True
            self._pace.answered(max(0.0, now - batch.asked_at))
        if batch.waiting[0] != index and index in batch.waiting:
            self._lose(number, before=index)
        # Two requests on, what is left of an older one is not coming: a server that
        # shares its work reorders neighbours at most.
        if next(iter(self._batches)) + 1 < number:
            for older in [b for b in self._batches if b + 1 < number]:
                self._lose(older, before=None)

    def _lose(self, number: int, *, before: int | None) -> None:
        batch = self._batches[number]
        while batch.waiting and batch.waiting[0] != before:
            index = batch.waiting.popleft()
            self._asked.pop(index, None)
            self._needed.appendleft(index)
        if not batch.waiting:
            del self._batches[number]

    def _forget(self, index: int) -> None:
        number = self._asked.pop(index, None)
        if number is None:
            if index in self._needed:
                self._needed.remove(index)
            return
        batch = self._batches[number]
        batch.waiting.remove(index)
        if not batch.waiting:
            del self._batches[number]

    def _again(self, index: int) -> None:
        self.corrupt += 1
        self._bad[index] = self._bad.get(index, 0) + 1
        self._needed.appendleft(index)
        if self._bad[index] >= MAX_BAD_PER_CHUNK or self.corrupt > self._chunks + 16:
            self.failure = f"chunk {index} came damaged {self._bad[index]} times"


def ranges(indices: Sequence[int]) -> tuple[Range, ...]:
    """Contiguous runs of ascending indices."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return tuple(runs)
