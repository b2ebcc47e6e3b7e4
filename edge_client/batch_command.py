"""What ``argosy-edge batch`` does: open the input, infer, write results, say how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge_client.batch_arrays import ArraySource, FolderSource, Source
from edge_client.batch_journal import Key, Place, Progress, opened
from edge_client.batch_parquet import ParquetSource
from edge_client.batch_results import Columns, Format, format_of
from edge_client.batch_run import Run
from edge_client.batch_tables import CsvSource
from edge_client.errors import BatchRunError, UsageError
from edge_client.inference import Loaded
from edge_client.ops import Postprocessor
from edge_client.own_runtime import find_slot, own_runtime
from edge_client.sessions import SessionSettings
from edge_client.settings import Home

LINE_SECONDS = 10.0
REDRAW_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for. first, last: rows, the last one excluded; None for all that follow.

    columns, id: of a table. kind: the format of parts in a folder. limit: rows that may fail.
    """

    model: str
    source: Path
    out: Path
    version: str | None = None
    first: int = 0
    last: int | None = None
    columns: tuple[str, ...] = ()
    id: str | None = None
    kind: Format | None = None
    raw: bool = False
    size: int = 32
    limit: int | None = None
    restart: bool = False
    telemetry: bool = True
    session: SessionSettings = field(default_factory=SessionSettings)


@dataclass(frozen=True, slots=True)
class Voice:
    """How to tell people. say: a line. draw: over the line before; None off a terminal."""

    say: Callable[[str], None]
    draw: Callable[[str], None] | None = None


def run_batch(home: Home, wish: Wish, voice: Voice) -> tuple[Progress, Place]:
    """Do a run, or the rest of it.

    Raises:
        EdgeError: it cannot be done, or not to its end.
    """
    if not wish.source.exists():
        msg = f"{wish.source} is not there"
        raise UsageError(msg)
    kind = format_of(wish.out)
    if kind is not None and wish.kind not in {None, kind}:
        msg = f"{wish.out.name} is no {wish.kind} file"
        raise UsageError(msg, hint="--format is for a folder; a file's format is its suffix")
    place = Place(wish.out.absolute(), kind or wish.kind or "csv", single=kind is not None)
    if place.out.parent.is_file() or not place.out.parent.is_dir():
        msg = f"the folder {place.out.parent} is not there"
        raise UsageError(msg, hint="make it first")
    if place.holds(wish.source):
        msg = f"the results in {wish.out} would replace the input {wish.source}"
        raise UsageError(msg, hint="give another name for the results")
    slot = find_slot(home, wish.model, wish.version)
    with own_runtime(home, slot, wish.session, telemetry=wish.telemetry, say=voice.say) as runtime:
        loaded = runtime.loaded(slot.model)
        assert loaded is not None  # noqa: S101 - it was swapped in
        source = open_source(wish, loaded)
        key = Key(
            model=slot.model,
            version=slot.version,
            sha256=slot.sha256,
            input=source.fingerprint,
            start=wish.first,
            stop=wish.last,
            columns=wish.columns,
            id=wish.id,
            raw=wish.raw,
            format=place.kind,
        )
        with opened(place, key, restart=wish.restart) as progress:
            if progress.next_row > key.start and not progress.finished:
                voice.say(f"going on with row {progress.next_row}")
            run = Run(
                runtime=runtime,
                loaded=loaded,
                source=source,
                place=place,
                columns=columns_for(loaded, raw=wish.raw),
                progress=progress,
                size=wish.size,
                limit=wish.limit,
                clock=time.monotonic,
                tell=Teller(voice, progress, _total(source, wish), time.monotonic),
            )
            try:
                return run.run(), place
            except MemoryError as error:
                msg = "there is not enough memory for so many rows at once"
                raise BatchRunError(msg, hint="give a smaller --batch-size") from error


def open_source(wish: Wish, loaded: Loaded) -> Source:
    """The input, by its suffix.

    Raises:
        UsageError: it is not of a form that is known, or not what the model takes.
    """
    path, signature = wish.source, loaded.manifest.signature
    tables: dict[str, type[CsvSource | ParquetSource]]
    tables = {".csv": CsvSource, ".parquet": ParquetSource}
    table = tables.get(path.suffix.lower())
    if (wish.columns or wish.id) and (table is None or path.is_dir()):
        msg = "--columns and --id are for tables: csv and parquet"
        raise UsageError(msg)
    if path.is_dir():
        return FolderSource(path, loaded)
    if path.suffix.lower() in {".npy", ".npz"}:
        return ArraySource(path, signature)
    if table is None:
        msg = f"{path.name} is of no form that can be read"
        raise UsageError(
            msg, hint="give a folder of pictures or npy files, or npy, npz, csv, parquet"
        )
    return table(path, signature, columns=wish.columns, id_=wish.id)


def columns_for(loaded: Loaded, *, raw: bool) -> Columns:
    """Classes as the manifest's post-processing says; outputs where there are no scores."""
    post = Postprocessor(loaded.manifest) if loaded.manifest.postprocess else None
    return Columns(post, raw=raw or not loaded.classes)


def _total(source: Source, wish: Wish) -> int | None:
    known = source.rows if wish.last is None else min(wish.last, source.rows or wish.last)
    return None if source.rows is None and wish.last is None else known


class Teller:
    """Says how far a run is: on a terminal all the time, else a line now and then."""

    def __init__(
        self, voice: Voice, progress: Progress, total: int | None, clock: Callable[[], float]
    ) -> None:
        self._voice, self._total, self._clock = voice, total, clock
        self._began, self._from = clock(), progress.next_row
        self._first = progress.key.start
        self._next = self._began + (LINE_SECONDS if voice.draw is None else 0.0)

    def __call__(self, row: int, answered: int, failed: int) -> None:
        """Row by row, it is enough to say so now and then."""
        now = self._clock()
        if now < self._next:
            return
        rate = (row - self._from) / max(now - self._began, 1e-9)
        text = f"{answered + failed} rows, {rate:.0f}/s"
        if self._total is not None:
            share = (row - self._first) / max(1, self._total - self._first)
            left = (self._total - row) / max(rate, 1e-9)
            text = (
                f"{share:.0%} of {self._total - self._first} rows, {rate:.0f}/s, {left:.0f} s left"
            )
        if failed:
            text += f", {failed} failed"
        if self._voice.draw is None:
            self._voice.say(text)
            self._next = now + LINE_SECONDS
        else:
            self._voice.draw(text)
            self._next = now + REDRAW_SECONDS
