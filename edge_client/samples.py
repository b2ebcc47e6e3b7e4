"""Samples set aside for the operator, where the operator of the device opted in.

Two streams for each model, each of at most one sample in a turn: ``uniform`` draws one of all
that are served, each with the same chance (Vitter, Algorithm R, ACM TOMS 11, 1985, with the skips
of Li, Algorithm L, ACM TOMS 20, 1994); ``uncertain`` takes the one with the lowest confidence
among those that telemetry looked at.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_client.scores import Scored
from edge_client.tally import Picked, Subject
from schemas import sample as wire
from schemas.sample import MAX_INPUTS, MAX_SAMPLE_BYTES, Sample, Tensor

MOST_PER_HOUR = 3600
OVERHEAD_BYTES = 8 * 1024
"""Of a sample's size, for names and shapes."""

log = logging.getLogger(__name__)

Inputs = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A batch of which inputs were kept. scored: what the model said of all of it."""

    picked: Picked
    scored: Scored | None
    truth: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One sample. at: (date, steady) seconds."""

    subject: Subject
    stream: wire.Stream
    chance: float
    inputs: Inputs
    at: tuple[float, float]
    predicted: int | None
    confidence: float | None
    truth: int | None

    def message(self, *, boot: bytes, seq: int) -> Sample:
        """The wire form, not yet dated."""
        slot = self.subject.slot
        tensors = [
            Tensor(name, x.dtype.name, list(x.shape), np.ascontiguousarray(x).tobytes())
            for name, x in self.inputs.items()
        ]
        return Sample(
            1, boot, seq, slot.model, slot.version, slot.variant, self.stream, self.chance, 0,
            synced=False, inputs=tensors, predicted=self.predicted, confidence=self.confidence,
            truth=self.truth,
        )  # fmt: skip


class Stream:
    """The turns of one model. ``draw`` and ``turn`` under the lock of whoever feeds it."""

    def __init__(
        self,
        sampler: Sampler,
        subject: Subject,
        *,
        seconds: float,
        rng: random.Random,
        now: float,
    ) -> None:
        """The first turn begins. seconds: a turn lasts, at least. now: steady seconds."""
        self._sampler, self._subject = sampler, subject
        self._seconds, self._rng = seconds, rng
        self._began = now
        self._at, self._next = 0, 1
        self._uniform: Held | None = None
        self._uncertain: Held | None = None

    def draw(self, n: int) -> int | None:
        """The row of the next n samples that takes the place of the one drawn before, if any."""
        chosen = None
        while self._next <= self._at + n:
            chosen = self._next - self._at - 1
            # The i-th sample is taken with 1/i: from one taken, the next comes beyond m with i/m.
            self._next = int(self._next / max(self._rng.random(), 1e-12)) + 1
        self._at += n
        return chosen

    def turn(self, now: float) -> int | None:
        """End the turn, if it is time: of how many samples one was drawn. now: steady seconds."""
        if self._at == 0 or now - self._began < self._seconds:
            return None
        seen, self._at, self._next, self._began = self._at, 0, 1, now
        return seen

    def fits(self, feed: Mapping[str, npt.NDArray[Any]], n: int) -> bool:
        """Whether a sample is small enough to be set aside; what is not is counted."""
        size = sum(x.nbytes for x in feed.values()) // max(1, n)
        if size <= MAX_SAMPLE_BYTES - OVERHEAD_BYTES and len(feed) <= MAX_INPUTS:
            return True
        self._sampler.refuse(n)
        return False

    def offer(self, candidate: Candidate) -> None:
        """Take a batch of which inputs were kept; the later one of the uniform stream counts."""
        picked = candidate.picked
        if picked.uniform is not None:
            row, inputs = picked.uniform
            self._uniform = self._held(candidate, "uniform", row, inputs, 1.0)
        if picked.inputs is None or candidate.scored is None:
            return
        confidence = candidate.scored.confidence[picked.rows]
        least = int(confidence.argmin())
        known = self._uncertain
        if known is None or known.confidence is None or confidence[least] < known.confidence:
            inputs = {name: x[least].copy() for name, x in picked.inputs.items()}
            row = picked.rows[least]
            self._uncertain = self._held(candidate, "uncertain", row, inputs, picked.chance)

    def finish(self, seen: int) -> int:
        """Hand over what a turn of ``seen`` samples gave. Returns how many samples."""
        done = []
        if self._uniform is not None:
            done.append(_with_chance(self._uniform, 1 / seen))
        if self._uncertain is not None:
            done.append(self._uncertain)
        self._uniform = self._uncertain = None
        self._sampler.ready.extend(done)
        return len(done)

    def _held(
        self, candidate: Candidate, stream: wire.Stream, row: int, inputs: Inputs, chance: float
    ) -> Held:
        scored = candidate.scored
        return Held(
            subject=self._subject,
            stream=stream,
            chance=min(1.0, chance),
            inputs=inputs,
            at=candidate.picked.at,
            predicted=None if scored is None else int(scored.classes[row]),
            confidence=None if scored is None else float(min(1.0, scored.confidence[row])),
            truth=candidate.truth,
        )


class Sampler:
    """Of one process. per_hour: of each model and stream; 0: none. ready: samples to be kept."""

    def __init__(self, per_hour: int, rng: random.Random) -> None:
        """rng: draws."""
        self.per_hour = min(per_hour, MOST_PER_HOUR)
        self.refused = 0
        self.ready: list[Held] = []
        self._rng = rng

    def stream(self, subject: Subject, now: float) -> Stream | None:
        """The turns of a model, from now on; None where nothing is set aside."""
        if self.per_hour <= 0:
            return None
        return Stream(self, subject, seconds=3600 / self.per_hour, rng=self._rng, now=now)

    def refuse(self, n: int) -> None:
        """Count samples that are too large."""
        if self.refused == 0:
            log.warning("inputs of more than %d bytes are not sampled", MAX_SAMPLE_BYTES)
        self.refused += n

    def taken(self) -> list[Held]:
        """What is ready, which then is not any more."""
        ready, self.ready = self.ready, []
        return ready


def _with_chance(held: Held, chance: float) -> Held:
    return Held(
        subject=held.subject,
        stream=held.stream,
        chance=chance,
        inputs=held.inputs,
        at=held.at,
        predicted=held.predicted,
        confidence=held.confidence,
        truth=held.truth,
    )
