"""What is open of one model in one role, between the inference and the figures."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_client.features import features_of
from edge_client.machine import Clocks
from edge_client.picking import Picker
from edge_client.samples import Candidate, Stream
from edge_client.slots import Slot
from edge_client.tally import Picked, Served, Subject, Tally
from schemas.model import Manifest
from schemas.window import Role

if TYPE_CHECKING:
    from edge_client.inference import Loaded

NEVER = 2**62
"""More samples than any process infers."""

Feed = Mapping[str, npt.NDArray[Any]]


@dataclass(slots=True)
class Line:
    """Of one slot in one role. Guarded by the locks of ``edge_client.telemetry.Windows``.

    slots: objects that name it; held, so that no other gets the address of one. at, serial: its
    record in the live counts; serial 0 where it has none. each: bytes of one sample's inputs, None
    where they differ. values: numbers in one. scored: whether the first output is scores, None
    until one was seen; width: its bytes for one sample. skip: samples that are passed over before
    one is looked at. used: something was counted since the last cut; idle: nothing between the two
    last ones. gone: nothing may be added. seen: samples since the picker was adapted. pending:
    items as ``tally.Served``. more: counts that are not of answered batches.
    """

    subject: Subject
    manifest: Manifest | None
    slots: list[Slot]
    at: int
    serial: int
    picker: Picker | None
    stream: Stream | None
    each: int | None
    skip: int
    adapted: float
    scored: bool | None = None
    width: int = 0
    values: float = 1.0
    gone: bool = False
    used: bool = False
    idle: bool = False
    seen: int = 0
    pending: list[tuple[Any, ...]] = field(default_factory=list)
    more: dict[str, int] = field(default_factory=dict)
    tally: Tally | None = None

    def ready(self, rng: random.Random) -> None:
        """Look at inputs where there is something to look for."""
        based = self.manifest is not None and self.manifest.baseline is not None
        if not based and self.stream is None:
            self.picker, self.skip = None, NEVER
            return
        self.picker = self.picker or Picker(rng)
        self.skip = 0 if self.stream is not None else self.picker.skip

    def learn(self, raw: Sequence[npt.NDArray[Any]], n: int) -> None:
        """See what the first answer looks like."""
        first = raw[0]
        self.scored = first.ndim == 2 and first.dtype.kind == "f"  # noqa: PLR2004 - [n, classes]
        self.width = first.nbytes // max(1, n) if self.scored else 0

    def choose(self, n: int, feed: Feed) -> tuple[list[int], float, int | None]:
        """Rows to look at of the next n samples, the chance of each, one for the uniform stream."""
        if self.picker is None:
            return [], 0.0, None
        rows, chance = self.picker.rows(n, sum(x.nbytes for x in feed.values()) // max(1, n))
        drawn = None if self.stream is None else self.stream.draw(n)
        # With samples to be set aside every batch is asked about; else only what is drawn.
        self.skip = 0 if self.stream is not None else self.picker.skip
        return rows, chance, drawn

    def copy(
        self, feed: Feed, n: int, chosen: tuple[list[int], float, int | None], clocks: Clocks
    ) -> Picked | None:
        """The inputs of the chosen rows; None where they are not by sample."""
        rows, chance, drawn = chosen
        if any(x.ndim == 0 or len(x) != n for x in feed.values()) or not (
            rows or drawn is not None
        ):
            return None
        first = next(iter(feed.values()))
        self.values = first.size / n
        fits = self.stream is not None and self.stream.fits(feed, n)
        return Picked(
            rows=rows,
            x=first[rows] if rows else None,
            chance=chance,
            inputs={name: x[rows] for name, x in feed.items()} if fits and rows else None,
            uniform=(drawn, {name: x[drawn].copy() for name, x in feed.items()})
            if fits and drawn is not None
            else None,
            at=(clocks.date(), clocks.steady()) if fits else (0.0, 0.0),
        )

    def opened(self, clocks: Clocks) -> Tally:
        """Its tally, begun with the first event since the last cut."""
        if self.tally is None:
            self.used = True
            self.tally = Tally(
                subject=self.subject,
                date=clocks.date(),
                steady=clocks.steady(),
                machine=clocks.machine,
                features=features_of(self.manifest),
            )
        return self.tally

    def taken(self) -> list[tuple[Any, ...]]:
        """What waits, which then does not any more."""
        pending, self.pending = self.pending, []
        return pending

    def add(self, tally: Tally, pending: Sequence[tuple[Any, ...]]) -> None:
        """Make figures of what waited."""
        served = [Served._make(item) for item in pending]
        found = tally.add(served)
        if self.each is not None:
            tally.raw_bytes += self.each * sum(one.n for one in served)
        if self.stream is None:
            return
        for one, scored in zip(served, found, strict=True):
            if one.picked is not None:
                self.stream.offer(Candidate(one.picked, scored, one.truth))

    def adapt(self, n: int, now: float) -> None:
        """Follow the load. n: samples that were worked off."""
        self.seen += n
        seconds = now - self.adapted
        if self.picker is None or self.seen == 0 or seconds <= 0:
            return
        self.picker.adapt(self.seen, seconds, self.values)
        self.seen, self.adapted = 0, now
        self.skip = 0 if self.stream is not None else self.picker.skip


def new_line(
    loaded: Loaded,
    *,
    subject: Subject,
    record: tuple[int, int],
    stream: Stream | None,
    rng: random.Random,
    now: float,
) -> Line:
    """A line of which nothing was counted. record: in the live counts. now: steady seconds."""
    manifest: Manifest | None = getattr(loaded, "manifest", None)
    line = Line(
        subject=subject,
        manifest=manifest,
        slots=[loaded.slot],
        at=record[0],
        serial=record[1],
        picker=None,
        stream=stream,
        each=_bytes_each(manifest),
        skip=NEVER,
        adapted=now,
    )
    line.ready(rng)
    return line


def subject_of(loaded: Loaded, role: Role) -> Subject:
    """Whose figures a model's are."""
    model = loaded.model
    nodes = dict(getattr(model, "nodes", {}) or {})
    return Subject(
        slot=loaded.slot,
        role=role,
        provider=model.provider,
        wanted=getattr(model, "wanted", ""),
        nodes=tuple(sorted(nodes.items())[:16]),
    )


def _bytes_each(manifest: Manifest | None) -> int | None:
    """Bytes of one sample's inputs, where the signature says."""
    if manifest is None:
        return None
    total = 0
    for spec in manifest.signature.inputs:
        if -1 in spec.shape[1:] or not spec.shape or spec.shape[0] != -1:
            return None
        total += np.dtype(spec.dtype).itemsize * math.prod(spec.shape[1:])
    return total
