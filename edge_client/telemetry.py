"""The windows that are open: fed by every inference, cut from time to time.

What an inference costs here is an addition to counts that outlive a SIGKILL
(``edge_client.live_counts``) and an item in a list; figures are made of many items at once
(``edge_client.tally``), by whoever cuts or finds the list full.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy.typing as npt

from edge_client.cuts import Cut, merged, shared
from edge_client.gauges import Power, rss_mb
from edge_client.lines import Line, new_line, subject_of
from edge_client.live_layout import Field, Totals
from edge_client.live_owner import LiveCounts
from edge_client.machine import Clocks
from edge_client.samples import Sampler
from edge_client.tally import Tally
from schemas.window import Method, Role

if TYPE_CHECKING:
    from edge_client.inference import Loaded

__all__ = ["Clocks", "Cut", "Windows", "rss_mb"]

MAX_PENDING = 512
MAX_PENDING_BYTES = 4 * 1024 * 1024
ITEM_BYTES = MAX_PENDING_BYTES // MAX_PENDING
"""So that either bound is one sum."""

MAX_KEPT = 64
"""Windows that could not be written, kept in memory; those of one model are made one."""

_N = Field.N.value
_FIELDS = (
    ("n", _N),
    ("errors", Field.ERRORS.value),
    ("rejected", Field.REJECTED.value),
    ("shed", Field.SHED.value),
)
_Work: TypeAlias = tuple[list[tuple[Any, ...]], int | None]
"""Items that wait, and of how many samples the uniform stream drew, where its turn is over."""


class Windows:
    """Takes what a runtime says of each inference. Fed from any thread, cut by any."""

    def __init__(
        self,
        clocks: Clocks | None = None,
        *,
        power: Power | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Nothing is open.

        Args:
            clocks: where time comes from.
            power: the energy of inferences.
            rng: draws the inputs that are looked at.
        """
        self.clocks = clocks or Clocks()
        self.loaded_at: float | None = None
        self.sampler: Sampler | None = None
        self.power = power or Power()
        self.live = LiveCounts()
        self.dropped = 0
        self.settled: dict[int, Totals] = {}
        self._words = self.live.words
        self._rng = rng or random.Random(os.urandom(16))  # noqa: S311 - a sample, not a secret
        self._lock, self._work = threading.Lock(), threading.Lock()
        self._active: dict[int, Line] = {}
        self._shadow: dict[int, Line] = {}
        self._held = 0
        self._kept: list[Cut] = []
        self._cpu = self.clocks.cpu()

    def keep(self, path: Path, *, store: bytes) -> None:
        """Keep the bare counts in a file, of the telemetry file ``store``.

        Raises:
            OSError: it cannot be made; all goes on without it.
        """
        with self._lock:
            self.live.keep(path, store=store, machine=self.clocks.machine)
            self._words = self.live.words

    def leave(self, *, forget: bool) -> None:
        """Let go of the file. forget: remove it, as all of it is in windows."""
        with self._lock:
            self._words = memoryview(bytearray(len(self._words) * 8)).cast("Q")
            if forget:
                self.live.forget()
            else:
                self.live.leave()

    def forked(self) -> None:
        """In a child of the process: begin with nothing, in memory alone."""
        self.live.words.release()
        self._words.release()
        self.live.abandon()
        self.live, self._lock, self._work = LiveCounts(), threading.Lock(), threading.Lock()
        self._words = self.live.words
        self._active, self._shadow, self._kept, self._held = {}, {}, [], 0
        self._cpu = self.clocks.cpu()
        if self.sampler is not None:
            self.sampler = Sampler(self.sampler.per_hour, self._rng)

    # --- the meter --------------------------------------------------------------------

    def served(
        self,
        loaded: Loaded,
        *,
        feed: Mapping[str, npt.NDArray[Any]],
        raw: Sequence[npt.NDArray[Any]],
        n: int,
        seconds: float,
        queue_seconds: float | Sequence[float] = 0.0,
        truth: int | None = None,
        runs: int = 1,
        role: Role = "active",
    ) -> None:
        """Count an answered batch.

        Args:
            loaded: what answered.
            feed: its inputs; what is kept of them is copied.
            raw: its outputs; the first is kept for a while where it is scores.
            n: samples.
            seconds: in the model; each sample waited for the whole of it.
            queue_seconds: before it, where there was a queue; all of them, or each.
            truth: the class of the one sample, where it is known.
            runs: calls of the session.
            role: whether the answers were used.
        """
        lines = self._active if role == "active" else self._shadow
        line = lines.get(id(loaded.slot)) or self._line(loaded, role)
        if line.scored is None:
            line.learn(raw, n)
        picked = None
        if line.skip < n:
            with self._lock:
                chosen = line.choose(n, feed)
            picked = line.copy(feed, n, chosen, self.clocks)
        elif line.picker is not None:
            line.picker.skip = line.skip = line.skip - n
        scores = raw[0] if line.scored else None
        with self._lock:
            if line.gone:
                line = self._line_of(loaded, role)
            if line.tally is None:
                line.opened(self.clocks)
            if line.each is None:
                size = sum(x.nbytes for x in feed.values())
                line.more["raw_bytes"] = line.more.get("raw_bytes", 0) + size
            self._words[line.at + _N] += n
            line.pending.append((scores, seconds, queue_seconds, n, runs, truth, picked))
            self._held += ITEM_BYTES + line.width * n
            if picked is not None:
                self._held += picked.size
            full = self._held > MAX_PENDING_BYTES
        if full:
            self.drain()

    def failed(self, loaded: Loaded, n: int = 1, role: Role = "active") -> None:
        """Count samples that the model failed on."""
        self._count(loaded, role, n=n, errors=n)

    def rejected(self, loaded: Loaded, n: int = 1) -> None:
        """Count samples that were refused before the model saw them."""
        self._count(loaded, "active", rejected=n)

    def shed(self, loaded: Loaded, n: int = 1) -> None:
        """Count samples that were dropped unanswered."""
        self._count(loaded, "active", shed=n)

    def cold(self, loaded: Loaded) -> None:
        """Count a load."""
        self.loaded_at = self.clocks.steady()
        self._count(loaded, "active", cold=1)

    def compared(self, loaded: Loaded, agreed: int, n: int) -> None:
        """Count samples that a shadow and the active model answered, and where they agree."""
        self._count(loaded, "shadow", compared=n, agreed=agreed)

    # --- making figures ---------------------------------------------------------------

    def drain(self) -> None:
        """Work off what waits; also done by whoever finds too much of it."""
        with self._work:
            with self._lock:
                self._held = 0
                taken = [(one, *self._taken(one)) for one in self._open() if one.used]
            for line, tally, work in taken:
                self._work_off(line, tally, work)

    def cut(self) -> list[Cut]:
        """Close all that is open; with what could not be written before."""
        with self._work:
            with self._lock:
                self._held = 0
                opened = self._open()
                self.settled = {x.serial: self.live.totals(x.at) for x in opened if x.serial}
                for line in opened:
                    line.idle = not line.used
                closed = [(line, *self._close(line)) for line in opened if line.used]
            now = self.clocks.steady()
            cuts = []
            for line, tally, work, more, totals in closed:
                self._work_off(line, tally, work)
                for name, count in more.items():
                    setattr(tally, name, getattr(tally, name) + count)
                tally.length = max(0.0, now - tally.steady)
                cuts.append(Cut(tally=tally, serial=line.serial, totals=totals))
            self._share([cut.tally for cut in cuts])
            kept, self._kept = self._kept, []
            return merged(kept, cuts)

    def restore(self, cuts: list[Cut]) -> None:
        """Take back windows that could not be written; the next cut has them again."""
        with self._work:
            self._kept = merged(cuts, self._kept)
            over = max(0, len(self._kept) - MAX_KEPT)
            self.dropped += over
            self._kept = self._kept[over:]

    def written(self, cuts: list[Cut]) -> None:
        """They are safe: of the live counts, only what came since is not in windows."""
        now, date = self.clocks.steady(), self.clocks.date()
        serials = {cut.serial for cut in cuts if cut.serial}
        with self._lock:
            for line in self._open():
                if line.serial in serials:
                    self.live.mark(line.at, date=date, since=now, last=now)
            self._forget_idle({cut.serial for cut in self._kept})

    def use(self, per_hour: int) -> None:
        """Set so many samples aside of each model and stream from now on; 0: none."""
        with self._lock:
            sampler = None if per_hour <= 0 else Sampler(per_hour, self._rng)
            self.sampler, now = sampler, self.clocks.steady()
            for line in self._open():
                wanted = sampler is not None and line.subject.role == "active"
                line.stream = sampler.stream(line.subject, now) if wanted and sampler else None
                line.ready(self._rng)

    @property
    def method(self) -> Method:
        """Where the figures of energy come from."""
        return self.power.method

    # --- inside -----------------------------------------------------------------------

    def _count(self, loaded: Loaded, role: Role, **counts: int) -> None:
        with self._lock:
            line = self._line_of(loaded, role)
            line.opened(self.clocks)
            for name, word in _FIELDS:
                if name in counts:
                    self._words[line.at + word] += counts[name]
            for name, count in counts.items():
                line.more[name] = line.more.get(name, 0) + count

    def _open(self) -> list[Line]:
        lines = (*self._active.values(), *self._shadow.values())
        return list({id(line): line for line in lines}.values())

    def _line(self, loaded: Loaded, role: Role) -> Line:
        with self._lock:
            return self._line_of(loaded, role)

    def _line_of(self, loaded: Loaded, role: Role) -> Line:
        """The line of a model, made where there is none; one that was loaded anew keeps its own."""
        lines = self._active if role == "active" else self._shadow
        line = lines.get(id(loaded.slot))
        if line is not None:
            return line
        subject = subject_of(loaded, role)
        line = next((one for one in lines.values() if one.subject == subject), None)
        if line is None:
            date, steady = self.clocks.date(), self.clocks.steady()
            sampled = self.sampler is not None and role == "active"
            line = new_line(
                loaded,
                subject=subject,
                record=self.live.claim(subject, date=date, steady=steady),
                stream=self.sampler.stream(subject, steady) if sampled and self.sampler else None,
                rng=self._rng,
                now=steady,
            )
        else:
            line.slots.append(loaded.slot)
        lines[id(loaded.slot)] = line
        return line

    def _taken(self, line: Line) -> tuple[Tally, _Work]:
        """What waits of a line, under the lock; the uniform stream's turn ends with it."""
        turned = None if line.stream is None else line.stream.turn(self.clocks.steady())
        return line.opened(self.clocks), (line.taken(), turned)

    def _work_off(self, line: Line, tally: Tally, work: _Work) -> None:
        pending, turned = work
        if pending:
            before = tally.n
            line.add(tally, pending)
            with self._lock:
                line.adapt(tally.n - before, self.clocks.steady())
        if turned is not None and line.stream is not None:
            tally.sampled += line.stream.finish(turned)

    def _close(self, line: Line) -> tuple[Tally, _Work, dict[str, int], Totals]:
        tally, work = self._taken(line)
        more, totals = line.more, self.live.totals(line.at)
        line.tally, line.more, line.used = None, {}, False
        return tally, work, more, totals

    def _forget_idle(self, kept: set[int]) -> None:
        """Let go of what was not used since the last cut: its record is free for another."""
        for lines in (self._active, self._shadow):
            for key, line in list(lines.items()):
                if not line.used and not line.gone and line.serial not in kept and line.idle:
                    line.gone = True
                    self.live.release(line.at)
                if line.gone:
                    del lines[key]

    def _share(self, tallies: list[Tally]) -> None:
        now = self.clocks.cpu()
        cpu, self._cpu = max(0.0, now - self._cpu), now
        busy = sum(tally.busy for tally in tallies)
        shared(tallies, cpu=cpu, joules=self.power.joules(min(busy, cpu)))
