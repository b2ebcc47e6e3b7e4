"""Look at the data before training: check every sample, find leaks, fix the drift baseline.

One pass over each split, in order, a block in memory at a time. What is kept of each
sample is 8 bytes of its hash and its class, so that millions fit: two different ones of
ten million share a hash with a probability of about 3 in a million.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from schemas.dataset import DatasetProfile, Overlap, Split, SplitProfile
from schemas.job import JobCause
from schemas.jobfile import Dataset
from schemas.signature import TensorSpec
from workers.errors import JobFailed
from workers.inspection.baseline import Values, baseline_of, input_statistics, most_frequent
from workers.inspection.findings import Look, Shared, problems_of
from workers.inspection.stream import Array, Block, Classes, SetHash, Stream, evenly_spaced
from workers.task import Splits, Task

KEY_BYTES = 8
_SHOWN = 3

Keys = NDArray[np.uint64]
Seen = NDArray[np.bool_]
ORDER: tuple[Split, ...] = ("train", "validation", "test")
PAIRS: tuple[tuple[Split, Split], ...] = (
    ("validation", "train"),
    ("test", "train"),
    ("test", "validation"),
)


def profile_splits(task: Task, splits: Splits, dataset: Dataset) -> DatasetProfile:
    """Read every sample once and tell what is there.

    Args:
        task: says dtype, shape, range and labels.
        splits: its data.
        dataset: ``check`` off leaves duplicates, leakage and ``problems`` out; fail makes
            any problem the end of the job. ``profile_samples`` bounds the training samples
            behind the input statistics.

    Raises:
        JobFailed: bad_data: a sample has another dtype or shape than said, or a class
            without a label; or there is any problem, with ``check`` fail. user_code:
            reading a sample raised.
    """
    started = time.perf_counter()
    wanted = dataset.profile_samples
    scans = {
        name: _scan(
            Stream(task, splits.get(name), name),
            compare=dataset.check != "off",
            statistics=wanted if name == "train" else 0,
        )
        for name in ORDER
    }
    spec = task.input_spec
    looks = [_look(name, scans[name]) for name in ORDER]
    shared = [one for pair in PAIRS if (one := _shared(*pair, scans)) is not None]
    problems: tuple[str, ...] = ()
    if dataset.check != "off":
        counts = {name: _counts(scans[name].y) for name in ORDER}
        problems = problems_of(looks, shared, task.labels, counts, spec, dataset)
    _judge(problems, dataset.check)
    train = scans["train"]
    return DatasetProfile(
        sha256=fingerprint({name: scan.sha256 for name, scan in scans.items()}),
        splits=tuple(look.profile for look in looks),
        overlaps=tuple(one.overlap for one in shared),
        baseline=baseline_of(train.statistics, _counts(train.y)),
        problems=problems,
        sampled=wanted if wanted < len(train.y) else None,
        seconds=time.perf_counter() - started,
    )


def fingerprint(sets: dict[Split, str]) -> str:
    """The hash of a data set, from the hash of each split (see ``SetHash``)."""
    digest = hashlib.sha256()
    for name in ORDER:
        digest.update(f"{name}:{sets[name]}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Scan:
    """One split, read through.

    keys: of each sample's content, empty if samples are not compared. y: their classes.
    not_finite, out_of_range: whether each sample is. statistics: by name, of samples
    evenly spaced over the split.
    """

    keys: Keys
    y: Classes
    not_finite: Seen
    out_of_range: Seen
    statistics: dict[str, Values]
    sha256: str


def _scan(stream: Stream, *, compare: bool, statistics: int) -> _Scan:
    n = len(stream)
    keys = np.zeros(n if compare else 0, dtype=np.uint64)
    y = np.zeros(n, dtype=np.int64)
    not_finite, out_of_range = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    chosen = np.zeros(n, dtype=bool)
    chosen[list(evenly_spaced(n, statistics))] = True
    digest = SetHash(n)
    parts: list[dict[str, Values]] = []
    for block in stream.blocks():
        here = slice(block.first, block.first + len(block))
        digest.update(block)
        y[here] = block.y
        if compare:
            keys[here] = _keys(block)
        not_finite[here] = _not_finite(block.x)
        out_of_range[here] = _out_of_range(block.x, stream.spec)
        if chosen[here].any():
            parts.append(input_statistics(block.x[chosen[here]], stream.spec.layout))
    merged = (
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    )
    return _Scan(keys, y, not_finite, out_of_range, merged, digest.hexdigest())


def _keys(block: Block) -> Keys:
    rows = np.ascontiguousarray(block.x).reshape(len(block), -1)
    found = b"".join(hashlib.blake2b(row.tobytes(), digest_size=KEY_BYTES).digest() for row in rows)
    return np.frombuffer(found, dtype=np.uint64)


def _not_finite(x: Array) -> Seen:
    if not np.issubdtype(x.dtype, np.floating):
        return np.zeros(len(x), dtype=bool)
    return np.asarray(~np.isfinite(x.reshape(len(x), -1)).all(1))


def _out_of_range(x: Array, spec: TensorSpec) -> Seen:
    """Whether a sample has a number outside of the range; a NaN is none."""
    if spec.range is None:
        return np.zeros(len(x), dtype=bool)
    rows: NDArray[Any] = x.reshape(len(x), -1)
    low, high = spec.range
    if np.issubdtype(x.dtype, np.floating):
        # Compared as the dtype that is served: 0.1 is another number there.
        low, high = (float(x.dtype.type(bound)) for bound in (low, high))
    return np.asarray(((rows < low) | (rows > high)).any(1))


def _counts(y: Classes) -> dict[int, int]:
    labels, counts = np.unique(y, return_counts=True)
    return dict(zip(labels.tolist(), counts.tolist(), strict=True))


def _look(split: Split, scan: _Scan) -> Look:
    n = len(scan.y)
    repeats = origin = np.zeros(0, dtype=np.int64)
    if len(scan.keys):
        _, first, inverse = np.unique(scan.keys, return_index=True, return_inverse=True)
        origin = first[inverse]
        repeats = np.flatnonzero(origin != np.arange(n))
    contrary = repeats[scan.y[repeats] != scan.y[origin[repeats]]]
    profile = SplitProfile(
        split=split,
        n=n,
        classes=most_frequent(_counts(scan.y)),
        duplicates=len(repeats),
        conflicts=len(contrary),
        not_finite=int(scan.not_finite.sum()),
        out_of_range=int(scan.out_of_range.sum()),
    )
    return Look(
        profile,
        not_finite=_first(np.flatnonzero(scan.not_finite)),
        out_of_range=_first(np.flatnonzero(scan.out_of_range)),
        duplicate=_example(repeats, origin),
        conflict=_example(contrary, origin),
    )


def _first(rows: NDArray[np.int64]) -> int | None:
    return int(rows[0]) if len(rows) else None


def _example(rows: NDArray[np.int64], origin: NDArray[np.int64]) -> tuple[int, int] | None:
    return (int(rows[0]), int(origin[rows[0]])) if len(rows) else None


def _shared(split: Split, other: Split, scans: dict[Split, _Scan]) -> Shared | None:
    """The samples of ``split`` that are also in ``other``; None if there are none."""
    here, there = scans[split], scans[other]
    if not len(here.keys) or not len(there.keys):
        return None
    known, first = np.unique(there.keys, return_index=True)
    at = np.minimum(np.searchsorted(known, here.keys), len(known) - 1)
    rows = np.flatnonzero(known[at] == here.keys)
    if not len(rows):
        return None
    matches = first[at[rows]]
    share = len(rows) / len(here.y)
    return Shared(
        Overlap(split=split, other=other, n=len(rows), share=share),
        conflicts=int((here.y[rows] != there.y[matches]).sum()),
        example=(int(rows[0]), int(matches[0])),
    )


def _judge(problems: tuple[str, ...], check: Literal["off", "warn", "fail"]) -> None:
    if problems and check == "fail":
        told = "; ".join(problems[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        detail = f"the data has faults: {told}{more}; mend them, or set dataset.check to warn"
        raise JobFailed(JobCause.BAD_DATA, detail)
