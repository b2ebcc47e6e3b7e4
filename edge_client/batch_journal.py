"""Where a run over files works, and what it has done: read at first, written after each part."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from edge_client.batch_results import Format
from edge_client.errors import BatchRunError, OtherRunError
from edge_client.files import disk_errors, fsync_folder
from schemas.base import Wire

_OURS = re.compile(r"(part|errors)-\d{6,}\.[a-z]+|errors\.csv")


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
        if self.single:  # by its whole name: r.csv and r.npz have errors of their own
            return self.out.with_name(f"{self.out.name}.errors.csv")
        return self.out / "errors.csv"

    def holds(self, source: Path) -> bool:
        """Whether results would be written over an input, or cleared away with it."""
        named = {path.resolve() for path in (self.out, self.work, self.errors)}
        source = source.resolve()
        return source in named or self.work.resolve() in source.parents or _same(source, self.out)

    def part(self, number: int) -> Path:
        """Answers."""
        return self.work / f"part-{number:06}.{self.kind}"

    def bad(self, number: int) -> Path:
        """Errors."""
        return self.work / f"errors-{number:06}.csv"

    def numbered(self, made: int, path: Callable[[int], Path]) -> list[Path]:
        """Those of the first ``made`` that are there: a part may have no answers, or no errors."""
        for i in range(made):
            if not (self.part(i).exists() or self.bad(i).exists()):
                msg = f"part {i} in {self.work} is gone"
                raise BatchRunError(msg, hint="begin anew with --restart")
        return [path(i) for i in range(made) if path(i).exists()]

    def forget(self) -> None:
        """Remove the journal, for good, before the parts of which it speaks."""
        self.journal.unlink(missing_ok=True)
        fsync_folder(self.work)


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
        msg = f"{place.work} belongs to another run: {_difference(progress.key, key)}"
        raise OtherRunError(msg, hint="give what it began with, or --restart to begin anew")
    return progress


def _difference(there: Key, now: Key) -> str:
    """The first of what differs, in the words of the command line."""
    if (there.model, there.version) != (now.model, now.version):
        asked = f"{now.model} version {now.version}"
        return f"it began with {there.model} version {there.version}, and this is {asked}"
    if there.sha256 != now.sha256:
        return "it began with another variant of this version"
    if there.input != now.input:
        return "its input was another one, or has been changed since"
    options: dict[str, Callable[[Key], str]] = {
        "--rows": _rows,
        "--columns": _columns,
        "--id": lambda key: key.id or "none",
        "--raw": lambda key: "yes" if key.raw else "no",
        "--format": lambda key: key.format,
    }
    for name, shown in options.items():
        if shown(there) != shown(now):
            return f"{name} was {shown(there)}, and is {shown(now)} now"
    return "it began otherwise"


def _rows(key: Key) -> str:
    return f"{key.start}:{'' if key.stop is None else key.stop}"


def _columns(key: Key) -> str:
    return ",".join(key.columns) or "none"


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _clear(place: Place) -> None:
    place.forget()
    for path in place.work.iterdir():
        if _OURS.fullmatch(path.name):
            path.unlink()
    if place.single:
        place.out.unlink(missing_ok=True)
        place.errors.unlink(missing_ok=True)
