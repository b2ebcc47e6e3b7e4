"""Batch inference on the cluster: Ray Data around ONNX Runtime actors.

What was inferred is not inferred again: each unit of the input has its own result file,
which appears whole. A driver that is started again goes on with the units that are left.
"""

from __future__ import annotations

import json
import logging
import platform
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from fsspec.core import url_to_fs

from schemas.job import JobCause, JobOrder
from schemas.jobfile import Batch
from schemas.model import Manifest, Variant
from workers.batch.plan import Unit, plan
from workers.batch.score import (
    UNFINISHED,
    Done,
    Scorer,
    found,
    part_of,
    unfinished_of,
    unwritable,
)
from workers.blame import job_failure
from workers.distributed.reservations import share
from workers.errors import JobFailed, UsageError
from workers.files import sha256_bytes, sha256_file
from workers.memory import killed_by_ray, ran_out

log = logging.getLogger("workers.batch")

SUMMARY = "_argosy.json"
MAX_BLOCKS = 2000
"""Tasks of a batch inference: beyond that many units, a task has several."""


class Fetcher(Protocol):
    """Where artifacts come from: ``workers.client.Api``."""

    def artifact(self, sha256: str, path: Path) -> None:
        """Write an artifact to a file."""
        ...


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What was inferred, earlier attempts included.

    rows: read. errors: of them, those with no answer but the reason. files: input files.
    left_out: why parts could not be read at all.
    """

    rows: int
    errors: int
    files: int
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        files = "1 file" if self.files == 1 else f"{self.files:,} files"
        parts = [f"{self.rows:,} rows of {files}"]
        if self.errors:
            parts.append(f"{self.errors:,} rows refused (column error)")
        if self.left_out:
            left = "1 part" if len(self.left_out) == 1 else f"{len(self.left_out)} parts"
            parts.append(f"{left} left out: {self.left_out[0]}")
        return "; ".join(parts)


def variant_for(manifest: Manifest, wanted: str | None, machine: str) -> Variant:
    """The variant to run on processors of a kind.

    Raises:
        JobFailed: there is none.
    """
    fitting = [
        v
        for v in manifest.variants
        if (not v.requires.arch or machine in v.requires.arch)
        and "CPUExecutionProvider" in v.requires.providers
    ]
    if wanted is not None:
        fitting = [v for v in fitting if v.id == wanted]
    if not fitting:
        have = ", ".join(v.id for v in manifest.variants)
        which = f"variant {wanted!r}" if wanted else "variant"
        detail = f"{manifest.model} has no {which} for {machine}; it has {have}"
        raise JobFailed(JobCause.USER_CODE, detail)
    return fitting[0]


def fetch_model(api: Fetcher, manifest: Manifest, variant: str | None, folder: Path) -> Path:
    """The ONNX file of the variant that this cluster runs, in ``folder``; fetched once."""
    chosen = variant_for(manifest, variant, platform.machine())
    path = folder / f"{chosen.file.sha256}.onnx"
    if not path.exists() or sha256_file(path) != chosen.file.sha256:
        folder.mkdir(parents=True, exist_ok=True)
        api.artifact(chosen.file.sha256, path)
    return path


def run_batch(order: JobOrder, model: Path, mailbox_name: str) -> BatchResult:
    """Infer everything that is not inferred yet, on the cluster that is connected.

    Raises:
        JobFailed: nothing could be read, or the input does not fit the model.
    """
    batch, manifest = order.spec.batch, order.manifest
    if batch is None or manifest is None:
        msg = "a batch job names a model version"
        raise UsageError(msg)
    if len(manifest.signature.inputs) != 1:
        detail = f"{batch.model} has {len(manifest.signature.inputs)} inputs; batch takes one"
        raise JobFailed(JobCause.USER_CODE, detail)
    data = model.read_bytes()
    identity = f"{sha256_bytes(data)}\n{','.join(batch.columns)}"
    try:
        units = plan(batch.input, identity, output=batch.output)
    except UsageError as error:
        raise JobFailed(JobCause.BAD_DATA, str(error)) from error
    there = prepare(batch.output, units)
    done = {u.key: got for u in there if (got := found(batch.output, u)) is not None}
    left = [unit for unit in units if unit.key not in done]
    log.info("%d of %d parts are there already", len(done), len(units))
    progress = _Progress(units, done, mailbox_name)
    try:
        for key, one in _scored(order, data, left):
            progress.add(key, one)
    except Exception as error:
        raise failure_of(error) from error
    return _finish(batch, order, units, progress.done)


def prepare(output: str, units: Sequence[Unit]) -> list[Unit]:
    """Make the folder of the results ready; the units of which something is there.

    What a killed attempt left unfinished goes.

    Raises:
        JobFailed: it cannot be written to, or holds the results of other work: whoever read
            the folder would take both for one.
    """
    try:
        fs, folder = url_to_fs(output.rstrip("/"))
        fs.makedirs(folder, exist_ok=True)
        names = [str(path).rpartition("/")[2] for path in fs.ls(folder, detail=False)]
        by_part = {part_of(output, unit).rpartition("/")[2]: unit for unit in units}
        parts = [name for name in names if name.startswith("part-") and name.endswith(".parquet")]
        other = [name for name in parts if name not in by_part]
        if other:
            detail = (
                f"{output} holds {len(other)} results of another model, or of other or changed "
                f"input, such as {min(other)}; name an empty folder, or remove them"
            )
            raise JobFailed(JobCause.USER_CODE, detail)
        mine = tuple(unfinished_of(part) for part in by_part)
        for name in names:
            if name.endswith(UNFINISHED) and name.startswith(mine):
                fs.rm(f"{folder}/{name}")
        probe = f"{folder}/.argosy-{secrets.token_hex(4)}{UNFINISHED}"
        with fs.open(probe, "wb") as file:
            file.write(b"x")
        fs.rm(probe)
    except OSError as error:
        raise unwritable(output, error) from error
    return [by_part[name] for name in parts]


def failure_of(error: BaseException) -> JobFailed:
    """Why inference failed; what the job did not cause is the cluster's."""
    told = job_failure(error)
    if told is not None:
        return told
    lines = str(error).strip().splitlines()
    last = lines[-1].strip()[:2000] if lines else type(error).__name__
    if killed_by_ray(str(error)) or ran_out(error) is not None:
        detail = f"a worker ran out of memory: {last}; lower batch.batch_size, or workers"
        return JobFailed(JobCause.OUT_OF_MEMORY, detail)
    return JobFailed(JobCause.DRIVER_DIED, f"inference failed: {last}")


class _Progress:
    """Counts, and tells of each unit."""

    def __init__(self, units: Sequence[Unit], done: Mapping[str, Done], mailbox_name: str) -> None:
        from workers.distributed.mailbox import Mailbox  # noqa: PLC0415 - needs Ray

        self.done = dict(done)
        self._known = {unit.key: unit.rows or 0 for unit in units}
        self._mailbox = Mailbox(mailbox_name)
        self._tell()

    def add(self, key: str, done: Done) -> None:
        """A unit is done."""
        self.done[key] = done
        if done.detail:
            log.warning("left out: %s", done.detail)
        self._tell()

    def _tell(self) -> None:
        rows = sum(one.rows for one in self.done.values())
        left = sum(n for key, n in self._known.items() if key not in self.done)
        self._mailbox.send("batch", {"done": rows, "total": rows + left})


def _scored(order: JobOrder, model: bytes, units: Sequence[Unit]) -> Any:
    """Key and counts of each unit, as the cluster finishes them."""
    if not units:
        return
    import ray  # noqa: PLC0415 - only a driver needs it
    import ray.data  # noqa: PLC0415 - likewise

    batch, manifest, resources = order.spec.batch, order.manifest, order.spec.resources
    if batch is None or manifest is None:  # run_batch checked it
        raise AssertionError
    settings = {
        "model": ray.put(model),
        "spec": manifest.signature.inputs[0].model_dump_json(),
        "labels": manifest.labels,
        "output": batch.output,
        "columns": batch.columns,
        "batch_size": batch.batch_size,
    }
    share()  # Ray Data asks the coordinator, too
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    items = [{"unit": json.dumps(asdict(unit))} for unit in units]
    most = min(resources.workers.max, len(items))
    blocks = min(len(items), MAX_BLOCKS)
    scored = ray.data.from_items(items, override_num_blocks=blocks).map_batches(
        ScoringActor,
        fn_constructor_kwargs=settings,
        batch_size=1,
        num_cpus=resources.cpus_per_worker,
        concurrency=(min(resources.workers.min, most), most),
    )
    for row in scored.iter_rows():
        facts = json.loads(row["done"])
        yield row["key"], Done(**facts)


class ScoringActor:
    """A ``Scorer`` as Ray Data calls it: a column of units in, their counts out."""

    def __init__(self, model: Any, spec: str, **settings: Any) -> None:
        import ray  # noqa: PLC0415 - an actor has it

        from schemas.signature import TensorSpec  # noqa: PLC0415 - likewise

        self._scorer = Scorer(ray.get(model), TensorSpec.model_validate_json(spec), **settings)

    def __call__(self, table: Mapping[str, Any]) -> dict[str, list[str]]:
        """Score each unit of the batch."""
        units = [_unit(text) for text in table["unit"]]
        done = [json.dumps(asdict(self._scorer.score(unit))) for unit in units]
        return {"key": [unit.key for unit in units], "done": done}


def _unit(text: str) -> Unit:
    fields = json.loads(text)
    return Unit(**{**fields, "groups": tuple(fields["groups"])})


def _finish(
    batch: Batch, order: JobOrder, units: Sequence[Unit], done: Mapping[str, Done]
) -> BatchResult:
    unread = [one.detail for one in done.values() if one.detail]
    rows = sum(one.rows for one in done.values())
    if unread and not rows:
        raise JobFailed(JobCause.BAD_DATA, f"nothing could be inferred: {unread[0]}")
    errors = sum(one.errors for one in done.values())
    result = BatchResult(rows, errors, len({u.name for u in units}), tuple(unread))
    counts = {"rows": rows, "errors": errors, "files": result.files, "left_out": unread[:100]}
    summary = {"job": order.id, "model": batch.model, **counts}
    fs, path = url_to_fs(f"{batch.output.rstrip('/')}/{SUMMARY}")
    with fs.open(path, "w") as file:
        json.dump(summary, file, indent=1)
    if unread:
        log.warning("%d parts could not be read; see %s", len(unread), SUMMARY)
    return result
