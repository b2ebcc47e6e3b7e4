"""Inference over the rows of a source, in parts; what is done stays done.

Each part's answers and errors are written whole, then the journal says so. Killed at any
instant, the same run goes on with the row after the last part that the journal knows.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_client.batch_arrays import Bad, Chunk, Source
from edge_client.batch_journal import Place, Progress
from edge_client.batch_results import Columns, Part, encode, encode_bad, join, join_bad
from edge_client.batching_desk import Runs
from edge_client.errors import BatchRunError, EdgeError, InferenceError, InputError
from edge_client.files import disk_errors, write_atomic
from edge_client.inference import Array, Loaded
from edge_client.isolate import isolate

PART_ROWS = 20_000
PART_BYTES = 16 * 1024**2
PART_SECONDS = 5.0


@dataclass(slots=True)
class Run:
    """One run over a source.

    size: rows in one inference. limit: rows that may fail. tell: hears of the progress after each
    inference. clock: seconds.
    """

    runtime: Runs
    loaded: Loaded
    source: Source
    place: Place
    columns: Columns
    progress: Progress
    size: int
    limit: int | None
    clock: Callable[[], float]
    tell: Callable[[int, int, int], None]
    _part: Part = field(default_factory=Part)

    def run(self) -> Progress:
        """Do what is left.

        Raises:
            BatchRunError: too many rows failed, or the input cannot be read on.
            DiskFullError: there is no room for the next part.
        """
        if not self.progress.finished:
            self._work_through()
        self._finish()
        return self.progress

    def _work_through(self) -> None:
        key, began = self.progress.key, self.clock()
        stop = self.progress.next_row
        self._require_few()
        for chunk in self.source.read(self.progress.next_row, key.stop, self.size):
            self._answer(chunk)
            part = self._part
            self.tell(
                chunk.stop,
                self.progress.answered + len(part.rows),
                self.progress.failed + len(part.bad),
            )
            full = len(part.rows) + len(part.bad) >= PART_ROWS or part.bytes >= PART_BYTES
            over = self.limit is not None and self.progress.failed + len(part.bad) > self.limit
            if full or over or self.clock() - began >= PART_SECONDS:
                self._keep(chunk.stop)
                began = self.clock()
                self._require_few()
            stop = chunk.stop
        if self._part.rows or self._part.bad:
            self._keep(stop)
        if self.progress.answered + self.progress.failed == 0:
            msg = "the input has no such rows"
            raise BatchRunError(msg)
        self._note(finished=True)

    def _answer(self, chunk: Chunk) -> None:
        part = self._part
        bad = list(chunk.bad)
        rows, ids, feed = chunk.rows, chunk.ids, chunk.feed
        if rows:
            wrong = self._misfits(feed, len(rows))
            if wrong or bad:
                self.runtime.rejected(self.loaded, len(wrong) + len(bad))
            good = [i for i in range(len(rows)) if i not in wrong]
            answers, failed = self._infer(feed, good)
            bad += [Bad(rows[i], ids[i], why) for i, why in (wrong | failed).items()]
            if failed or wrong:
                good = [i for i in good if i not in failed]
                rows, ids = [rows[i] for i in good], [ids[i] for i in good]
            if answers is not None:
                prediction = self.loaded.model.answer(answers, len(good), self.loaded.slot)
                part.add(rows, ids, self.columns.of(prediction))
        elif bad:
            self.runtime.rejected(self.loaded, len(bad))
        part.bad += sorted(bad, key=lambda one: one.row)

    def _misfits(self, feed: dict[str, Array], n: int) -> dict[int, str]:
        """Rows that the model does not take, with the reason."""
        model = self.loaded.model
        batch = _batch_of(self.loaded)
        if batch == -1:
            try:
                model.check(feed)
            except InputError:
                pass
            else:
                return {}
        wrong = {}
        for i in range(n):
            try:
                model.check(_rows(feed, [i], batch))
            except InputError as error:
                wrong[i] = str(error)
        return wrong

    def _infer(
        self, feed: dict[str, Array], rows: list[int]
    ) -> tuple[list[Array] | None, dict[int, str]]:
        """Outputs of the rows that have some, one after the other; the reasons of the others."""
        if not rows:
            return None, {}
        batch = _batch_of(self.loaded)
        most = self.size if batch == -1 else max(1, batch or 1)
        most = most if self.loaded.model.apart or batch != -1 else 1
        outputs: list[list[Array]] = []
        failed: dict[int, str] = {}
        for at in range(0, len(rows), most):
            some = rows[at : at + most]
            try:
                outputs.append(self._run_rows(feed, some))
            except InferenceError as error:
                if len(some) == 1:
                    failed[some[0]] = str(error)
                    continue
                half = len(some) // 2
                found = [*self._apart(feed, some[:half]), *self._apart(feed, some[half:])]
                for row, answer in zip(some, found, strict=True):
                    if isinstance(answer, EdgeError):
                        failed[row] = str(answer)
                    else:
                        outputs.append(answer)
        if not outputs:
            return None, failed
        if len(outputs) == 1:
            return outputs[0], failed
        return [_joined(parts) for parts in zip(*outputs, strict=True)], failed

    def _apart(self, feed: dict[str, Array], rows: list[int]) -> list[list[Array] | EdgeError]:
        def run(some: Sequence[int]) -> list[list[Array]]:
            raw = self._run_rows(feed, list(some))
            return [[output[i : i + 1] for output in raw] for i in range(len(some))]

        return isolate(rows, run)

    def _run_rows(self, feed: dict[str, Array], rows: list[int]) -> list[Array]:
        """The outputs of some rows, [rows, …]."""
        batch, n = _batch_of(self.loaded), len(rows)
        raw = self.runtime.infer(self.loaded, _rows(feed, rows, batch), n=n, tried=n == 1)
        if batch is None:
            return [output[None] for output in raw]
        want = n if batch == -1 else batch
        for spec, output in zip(self.loaded.model.signature.outputs, raw, strict=True):
            if output.shape[:1] != (want,):
                if n == 1:
                    return [one[None] for one in raw]
                msg = f"output {spec.name!r} has not a row for each of the input's"
                raise BatchRunError(msg, hint="give --batch-size 1")
        return [output[:n] for output in raw]

    def _keep(self, stop: int) -> None:
        """Write the part, then note it."""
        part, number = self._part, self.progress.parts
        with disk_errors(f"part {number} of the results"):
            for path, data in (
                (self.place.part(number), encode(part, self.place.kind) if part.rows else None),
                (self.place.bad(number), encode_bad(part.bad) if part.bad else None),
            ):
                if data is None:
                    path.unlink(missing_ok=True)  # of a run that was killed before its note
                else:
                    write_atomic(path, data)
        self._note(
            parts=number + 1,
            next_row=stop,
            answered=self.progress.answered + len(part.rows),
            failed=self.progress.failed + len(part.bad),
        )
        self._part = Part()

    def _note(self, **changes: int | bool) -> None:
        self.progress = self.progress.model_copy(update=changes)
        with disk_errors("the journal of the run"):
            write_atomic(self.place.journal, self.progress.model_dump_json().encode())

    def _require_few(self) -> None:
        if self.limit is not None and self.progress.failed > self.limit:
            msg = f"{self.progress.failed} rows have failed, more than --limit {self.limit}"
            where = self.place.bad(self.progress.parts - 1).parent
            hint = f"see errors-*.csv in {where}; the same command with a higher --limit goes on"
            raise BatchRunError(msg, hint=hint)

    def _finish(self) -> None:
        """Put together what is one file; a repeat comes to the same."""
        place, made = self.place, self.progress.parts
        with disk_errors(str(place.out)):
            join_bad(place.numbered(made, place.bad), place.errors)
            if place.single:
                join(place.numbered(made, place.part), place.out, place.kind)
                place.forget()
                shutil.rmtree(place.work, ignore_errors=True)


def _joined(parts: Sequence[Array]) -> Array:
    """Outputs one after the other; an array of arrays where rows have shapes of their own."""
    rows = {part.shape[1:] for part in parts}
    if len(rows) == 1:
        return np.concatenate(parts)
    found = np.empty(sum(map(len, parts)), object)
    for i, row in enumerate(row for part in parts for row in part):
        found[i] = row
    return found


def _batch_of(loaded: Loaded) -> int | None:
    """The batch in front of each input: -1 for any, its size, or None where there is none."""
    first = {spec.shape[:1] for spec in loaded.model.signature.inputs}
    common = next(iter(first)) if len(first) == 1 else ()
    return common[0] if common else None


def _rows(feed: dict[str, Array], rows: list[int], batch: int | None) -> dict[str, Array]:
    """Some rows as the model takes them: a fixed batch is filled up with its last row."""
    if batch is None:
        return {name: value[rows[0]] for name, value in feed.items()}
    if batch > len(rows):
        rows = rows + [rows[-1]] * (batch - len(rows))
    if rows == list(range(len(next(iter(feed.values()))))):
        return feed
    return {name: value[rows] for name, value in feed.items()}
