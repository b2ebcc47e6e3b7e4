"""Where a run over files works, and what it has done: read at first, written after each part."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from edge_client.batch_results import Format
from edge_client.errors import OtherRunError
from edge_client.files import disk_errors
from schemas.base import Wire


class Key(Wire):
    """What the results depend on. sha256: of the model's file. input: the source's fingerprint."""

    model: str
    version: int
    sha256: str
    input: str
    start: int
    stop: int | None
    columns: tuple[str, ...]
    id: str | None
    raw: bool
    format: str


class Progress(Wire):
    """How far a run is. next_row: the first that is not done. failed: rows without an answer."""

    key: Key
    parts: int = 0
    next_row: int
    answered: int = 0
    failed: int = 0
    finished: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where results go. file: the one they are put together to; None where parts are the result."""

    out: Path
    kind: Format
    single: bool

    @property
    def work(self) -> Path:
        """The folder of the parts and the journal."""
        return self.out.with_name(f"{self.out.name}.parts") if self.single else self.out

    @property
    def journal(self) -> Path:
        """What is done."""
        return self.work / "run.json"

    @property
    def errors(self) -> Path:
        """The rows without an answer, with their reasons."""
        return self.out.with_suffix(".errors.csv") if self.single else self.out / "errors.csv"

    def part(self, number: int) -> Path:
        """Answers."""
        return self.work / f"part-{number:06}.{self.kind}"

    def bad(self, number: int) -> Path:
        """Errors."""
        return self.work / f"errors-{number:06}.csv"

    def numbered(self, made: int, path: Callable[[int], Path]) -> list[Path]:
        """Those of the first ``made`` that are there: a part may have no answers, or no errors."""
        return [path(i) for i in range(made) if path(i).exists()]


@contextmanager
def opened(place: Place, key: Key, *, restart: bool) -> Iterator[Progress]:
    """Begin a run, or go on with it; nobody else may meanwhile.

    Raises:
        OtherRunError: another run works there, or its results are there.
    """
    with disk_errors(str(place.work)):
        place.work.mkdir(parents=True, exist_ok=True)
    lock = os.open(place.work, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"another run works in {place.work}"
            raise OtherRunError(msg) from error
        yield _found(place, key, restart=restart)
    finally:
        os.close(lock)


def _found(place: Place, key: Key, *, restart: bool) -> Progress:
    fresh = Progress(key=key, next_row=key.start)
    if restart:
        _clear(place)
    try:
        progress = Progress.model_validate_json(place.journal.read_bytes())
    except FileNotFoundError:
        progress = None
    except ValidationError as error:
        msg = f"the journal {place.journal} is damaged"
        raise OtherRunError(msg, hint="begin anew with --restart") from error
    if progress is None:
        taken = place.out.exists() if place.single else any(place.out.iterdir())
        if taken:
            msg = f"{place.out} is there already"
            raise OtherRunError(msg, hint="give another name, or --restart to replace it")
        progress = fresh
    elif progress.key != key:
        odd = [
            f"{name} {getattr(progress.key, name)} there, {getattr(key, name)} now"
            for name in ("model", "version", "input", "start", "stop", "columns", "raw", "format")
            if getattr(progress.key, name) != getattr(key, name)
        ]
        msg = f"{place.work} belongs to another run ({odd[0] if odd else 'another variant'})"
        raise OtherRunError(
            msg, hint="give what it began with (--version for the model), or --restart"
        )
    return progress


def _clear(place: Place) -> None:
    for path in sorted(place.work.iterdir()):
        if path.name.startswith(("part-", "errors-", "run.json", "errors.csv")):
            path.unlink()
    if place.single:
        place.out.unlink(missing_ok=True)
        place.errors.unlink(missing_ok=True)
