"""How far a sweep has come, kept beside its checkpoints: what another attempt goes on from.

Pure changes of one record, and its reading and writing. The record pins the plan: the
parameters of a trial stay those that its checkpoints were made with.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from schemas.base import Wire
from schemas.job import JobCause, Trial
from schemas.sweep import MAX_TRIALS
from workers.files import write_atomic
from workers.sweep.plan import Parameters

log = logging.getLogger(__name__)

FILE = "sweep.json"
MAX_DETAIL = 500
TRANSIENT = frozenset({JobCause.INTERNAL, JobCause.DRIVER_DIED})
"""Causes that the same parameters may not meet again."""

ENDED = frozenset({"done", "stopped", "failed"})


class Entry(Wire):
    """A trial. cause: with failed. rungs: what it measured at ASHA's milestones, by epoch."""

    trial: Trial
    cause: JobCause | None = None
    rungs: Annotated[dict[int, float], Field(max_length=64)] = Field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether it shall not run again within this attempt."""
        return self.trial.state in ENDED

    @property
    def broken(self) -> bool:
        """Whether the machinery failed it, which may do better in another attempt."""
        return self.trial.state == "failed" and self.cause in TRANSIENT


class Record(Wire):
    """All trials, in the order of their numbers."""

    entries: Annotated[tuple[Entry, ...], Field(min_length=1, max_length=MAX_TRIALS)]

    @property
    def trials(self) -> tuple[Trial, ...]:
        """As the API shows them."""
        return tuple(entry.trial for entry in self.entries)

    def entry(self, number: int) -> Entry:
        """A trial by its number, from 1."""
        return self.entries[number - 1]

    def open(self) -> tuple[int, ...]:
        """The trials that have not ended."""
        return tuple(e.trial.number for e in self.entries if not e.ended)


def new_record(plan: Iterable[Parameters]) -> Record:
    """Nothing has run yet."""
    return Record(
        entries=tuple(
            Entry(trial=Trial(number=number, parameters=parameters))
            for number, parameters in enumerate(plan, start=1)
        )
    )


def reopened(record: Record) -> Record:
    """The record as another attempt finds it: what ran then, or broke, waits now."""
    return Record(
        entries=tuple(
            e
            if e.ended and not e.broken
            else _changed(e, {"state": "waiting", "detail": None}).model_copy(
                update={"cause": None}
            )
            for e in record.entries
        )
    )


def started(record: Record, number: int) -> Record:
    """A trial runs; one that ended before stays as it is."""
    if record.entry(number).ended:
        return record
    return _with(record, number, {"state": "running"})


def measured(record: Record, number: int, epoch: int, value: float, rungs: Sequence[int]) -> Record:
    """A trial reported an epoch. rungs: the epochs whose values ASHA will ask for again."""
    entry = record.entry(number)
    best = value if entry.trial.best is None else max(value, entry.trial.best)
    at = {**entry.rungs, epoch: value} if epoch in rungs else entry.rungs
    change = {"state": "running", "best": best, "epochs": max(epoch, entry.trial.epochs)}
    return _with(record, number, change, rungs=at)


def finished(record: Record, number: int, epochs: int, best: float) -> Record:
    """A trial ended by its own stop rules."""
    return _with(record, number, {"state": "done", "epochs": epochs, "best": best, "detail": None})


def stopped(record: Record, number: int, why: str) -> Record:
    """A trial was ended for what others reached; one that ended before stays as it is."""
    if record.entry(number).ended:
        return record
    return _with(record, number, {"state": "stopped", "detail": why[:MAX_DETAIL]})


def failed(record: Record, number: int, cause: JobCause, detail: str) -> Record:
    """A trial failed; one that ended before stays as it is."""
    if record.entry(number).ended:
        return record
    change = {"state": "failed", "detail": detail[:MAX_DETAIL]}
    return _with(record, number, change, cause=cause)


def at_target(record: Record, target: float | None) -> int | None:
    """The first trial that ended with the target reached."""
    if target is None:
        return None
    return next(
        (
            t.number
            for t in record.trials
            if t.state == "done" and t.best is not None and t.best >= target
        ),
        None,
    )


def ranking(record: Record) -> tuple[Trial, ...]:
    """The trials that measured something, the best first; at a tie, the one of fewer epochs.

    One that failed later may still hold the best checkpoint, but its parameters failed.
    """
    found = [t for t in record.trials if t.best is not None and t.state in {"done", "stopped"}]
    return tuple(sorted(found, key=lambda t: (-(t.best or 0.0), t.epochs, t.number)))


def _with(
    record: Record,
    number: int,
    change: Mapping[str, object],
    *,
    rungs: Mapping[int, float] | None = None,
    cause: JobCause | None = None,
) -> Record:
    old = record.entry(number)
    more = {"cause": cause} if rungs is None else {"cause": cause, "rungs": dict(rungs)}
    new = _changed(old, change).model_copy(update=more)
    entries = (*record.entries[: number - 1], new, *record.entries[number:])
    return Record(entries=entries)


def _changed(entry: Entry, change: Mapping[str, object]) -> Entry:
    trial = Trial.model_validate({**entry.trial.model_dump(), **change})
    return entry.model_copy(update={"trial": trial})


def storage_of(storage: str, number: int) -> str:
    """Where a trial keeps its checkpoints: below the job's folder or URL."""
    return f"{storage.rstrip('/')}/trial-{number}"


def load(storage: str) -> Record | None:
    """The record of earlier attempts; None where there is none, or none that can be read.

    Args:
        storage: the job's folder or URL.
    """
    try:
        if "://" not in storage:
            data = Path(storage, FILE).read_bytes()
        else:
            system, path = _remote(storage)
            with system.open_input_stream(path) as stream:
                data = stream.read()
    except FileNotFoundError:
        return None
    try:
        return Record.model_validate_json(data)
    except ValidationError as error:
        log.warning("the record of the sweep is damaged, and begun anew: %s", error.errors()[0])
        return None


def save(storage: str, record: Record) -> None:
    """Replace the record; a reader sees the old one or the new one."""
    data = record.model_dump_json().encode()
    if "://" not in storage:
        write_atomic(Path(storage, FILE), data)
        return
    # An object store shows an object when its upload ended.
    system, path = _remote(storage)
    with system.open_output_stream(path) as stream:
        stream.write(data)


def _remote(storage: str) -> tuple[Any, str]:
    """The record's file system and its path there; as Ray reads the same URLs."""
    from pyarrow import fs  # noqa: PLC0415 - for URLs alone, and not small

    system, path = fs.FileSystem.from_uri(f"{storage.rstrip('/')}/{FILE}")
    return system, path
