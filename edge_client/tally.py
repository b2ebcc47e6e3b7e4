"""What one model did in one span of time, added up many inferences at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_client.features import Features
from edge_client.scores import Scored, score, shares
from edge_client.slots import Slot
from schemas.telemetry import GAMMA, MAX_BUCKET, MAX_CLASSES
from schemas.window import SHARES, Role

CHUNK_BYTES = 1024 * 1024
"""So much of the inputs is looked at together: their float64 form is up to eight times that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whose figures they are. nodes: of the graph, by provider, where there are several."""

    slot: Slot
    role: Role = "active"
    provider: str = "CPUExecutionProvider"
    wanted: str = ""
    nodes: tuple[tuple[str, int], ...] = ()


class Picked(NamedTuple):
    """Inputs of an answered batch that are looked at: ``rows`` of it, drawn with ``chance`` each.

    x: the first input. inputs: all of them, where samples may be set aside. uniform: the row that
    was drawn for the uniform stream, with its inputs. at: (date, steady) seconds.
    """

    rows: list[int]
    x: npt.NDArray[Any] | None
    chance: float
    inputs: dict[str, npt.NDArray[Any]] | None = None
    uniform: tuple[int, dict[str, npt.NDArray[Any]]] | None = None
    at: tuple[float, float] = (0.0, 0.0)

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        held = [] if self.x is None else [self.x]
        held += (self.inputs or {}).values()
        held += () if self.uniform is None else self.uniform[1].values()
        return sum(x.nbytes for x in held)


class Served(NamedTuple):
    """An answered batch. scores: its first output, where that is [n, classes]."""

    scores: npt.NDArray[Any] | None
    seconds: float
    queue_seconds: float | Sequence[float]
    n: int
    runs: int
    truth: int | None
    picked: Picked | None


@dataclass(slots=True)
class Tally:
    """Counts as in ``schemas.window.Window``. Not thread-safe.

    date, steady: when it began, in seconds. length: seconds until it was cut. busy: seconds in the
    model. cpu: seconds of the process, and joules: of the machine, that fall to it.
    """

    subject: Subject
    date: float
    steady: float
    machine: bytes
    length: float = 0.0
    busy: float = 0.0
    cpu: float = 0.0
    joules: float = 0.0
    n: int = 0
    errors: int = 0
    runs: int = 0
    rejected: int = 0
    shed: int = 0
    cold: int = 0
    labelled: int = 0
    correct: int = 0
    compared: int = 0
    agreed: int = 0
    lost: int = 0
    raw_bytes: int = 0
    sampled: int = 0
    latency: Counter[int] = field(default_factory=Counter)
    queue: Counter[int] = field(default_factory=Counter)
    classes: Counter[int] = field(default_factory=Counter)
    confidence: list[int] = field(default_factory=lambda: [0] * SHARES)
    entropy: list[int] = field(default_factory=lambda: [0] * SHARES)
    features: Features = field(default_factory=Features)

    def add(self, served: Sequence[Served]) -> list[Scored | None]:
        """Count answered batches; each sample waited for the whole of its one.

        Returns:
            For each what its scores say, where it has any.
        """
        weights = np.array([one.n for one in served], np.int64)
        seconds = np.array([one.seconds for one in served])
        self.n += int(weights.sum())
        self.runs += sum(one.runs for one in served)
        self.busy += float(seconds.sum())
        _count(self.latency, seconds * 1e6, weights)
        self._queued(served)
        self._look(one.picked for one in served if one.picked is not None)
        return self._score(served)

    def merge(self, other: Tally) -> None:
        """Add a later one of the same subject."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.length = max(self.length, other.steady + other.length - self.steady)
        self.latency.update(other.latency)
        self.queue.update(other.queue)
        self._add_classes(other.classes)
        self.confidence = _added(self.confidence, other.confidence)
        self.entropy = _added(self.entropy, other.entropy)
        self.features.merge(other.features)

    def _queued(self, served: Sequence[Served]) -> None:
        waits: list[float] = []
        for one in served:
            wait = one.queue_seconds
            if isinstance(wait, Sequence):
                waits += wait
            elif wait > 0:
                waits += [wait] * one.n
        if waits:
            _count(self.queue, np.array(waits) * 1e6, np.ones(len(waits), np.int64))

    def _score(self, served: Sequence[Served]) -> list[Scored | None]:
        found: list[Scored | None] = [None] * len(served)
        for group in _by_width(served):
            scored = score(np.concatenate([served[i].scores for i in group]))
            values, counts = np.unique(scored.classes, return_counts=True)
            self._add_classes(dict(zip(values.tolist(), counts.tolist(), strict=True)))
            self.confidence = _added(self.confidence, shares(scored.confidence, SHARES))
            if scored.entropy is not None:
                self.entropy = _added(self.entropy, shares(scored.entropy, SHARES))
            at = 0
            for i in group:
                one = served[i]
                if one.truth is not None and one.n == 1:
                    self.labelled += 1
                    self.correct += int(scored.classes[at] == one.truth)
                if one.picked is not None:
                    found[i] = _slice(scored, at, at + one.n)
                at += one.n
        return found

    def _look(self, picked: Iterable[Picked]) -> None:
        """Count inputs, some of them together where their shapes allow it."""
        waiting: list[npt.NDArray[Any]] = []
        size = 0
        for x in (one.x for one in picked if one.x is not None and len(one.x)):
            if waiting and (size + x.nbytes > CHUNK_BYTES or x.shape[1:] != waiting[0].shape[1:]):
                self.features.add(np.concatenate(waiting))
                waiting, size = [], 0
            waiting.append(x)
            size += x.nbytes
        if waiting:
            self.features.add(np.concatenate(waiting))

    def _add_classes(self, counts: dict[int, int]) -> None:
        for index, count in counts.items():
            if index in self.classes or len(self.classes) < MAX_CLASSES:
                self.classes[index] += count


_SUMS = (
    "busy", "cpu", "joules", "n", "errors", "runs", "rejected", "shed", "cold", "labelled",
    "correct", "compared", "agreed", "lost", "raw_bytes", "sampled",
)  # fmt: skip


def buckets(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """``schemas.telemetry.bucket_of`` of each value; what is no duration counts as none."""
    usable = np.nan_to_num(np.maximum(values, 1.0), nan=1.0, posinf=math.inf)
    found = np.ceil(np.log(usable) / math.log(GAMMA) - 1e-9)
    slots: npt.NDArray[np.int64] = np.clip(found, 0, MAX_BUCKET).astype(np.int64)
    return slots


def _count(
    into: Counter[int], values: npt.NDArray[np.float64], weights: npt.NDArray[np.int64]
) -> None:
    found = np.bincount(buckets(values), weights=weights)
    for bucket in np.flatnonzero(found).tolist():
        into[bucket] += int(found[bucket])


def _by_width(served: Sequence[Served]) -> Iterable[list[int]]:
    """Indices of those that have scores, by the number of classes."""
    groups: dict[int, list[int]] = {}
    for i, one in enumerate(served):
        if one.scores is not None and one.scores.shape[0] == one.n and one.n:
            groups.setdefault(one.scores.shape[1], []).append(i)
    return groups.values()


def _slice(scored: Scored, start: int, end: int) -> Scored:
    entropy = None if scored.entropy is None else scored.entropy[start:end]
    return Scored(scored.classes[start:end], scored.confidence[start:end], entropy)


def _added(a: Sequence[int], b: Sequence[int]) -> list[int]:
    return [x + y for x, y in zip(a, b, strict=True)]
