"""Job files: YAML in, a job and the files that go with it out, or every fault with its line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.cli.job_faults import faults
from orchestrator.cli.overrides import Override, apply, doubts, option_at
from orchestrator.cli.yamlfile import Document, Place, load
from orchestrator.errors import Invalid
from schemas.job import JobView
from schemas.jobfile import RESERVED_MODULES as OURS
from schemas.jobfile import JobSpec
from schemas.lineage import Code

RECIPES = "workers.recipes."
_ANY_CODE = {"sha256": "0" * 64, "size": 1, "files": 1}
_ANY_ONNX = {"file": "0" * 64, "size": 1}
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class JobFile:
    """A job file that was read.

    folder: of the task's code, to be packed with the job; None where nothing is to be.
    notes: what its author may not have meant. model: the ONNX file, to be uploaded; the
    spec names its digest.
    """

    spec: JobSpec
    folder: Path | None
    notes: tuple[str, ...] = ()
    model: Path | None = None


def load_job(path: Path, overrides: Sequence[Override] = ()) -> JobFile:
    """Read a job file.

    Args:
        path: of the file.
        overrides: keys to change in it.

    Raises:
        Invalid: it cannot be read as YAML.
        Located: it is YAML and not a job; all its faults at once.
    """
    document = load(path)
    value = apply(document.value, overrides)
    named = value.get("code")
    if isinstance(named, str):
        value["code"] = _ANY_CODE
    source = _onnx_named(value)
    if source is not None:
        value["onnx"] = {"name": Path(source).name, **_inner(value["onnx"]), **_ANY_ONNX}
    try:
        spec = JobSpec.model_validate(value, extra="forbid")
    except ValidationError as error:
        raise faults(error, lambda place: _where(document, overrides, place)) from None
    if isinstance(named, str):
        spec = spec.model_copy(update={"code": None})
        folder: Path | None = _named_folder(document, overrides, path, named)
    else:
        folder = None if spec.code else _folder_beside(path, spec)
    model = None
    if source is not None:
        model = _beside(document, overrides, path, source)
        spec = with_onnx(spec, model)
    notes = [*doubts(document.value, overrides), *_missing_module(path, spec, folder, spec.code)]
    return JobFile(spec, folder, tuple(notes), model)


def _onnx_named(value: Mapping[str, Any]) -> str | None:
    """The path of the ONNX file, where a job file names one; not the digest of an artifact."""
    onnx = value.get("onnx")
    named = onnx.get("file") if isinstance(onnx, dict) else onnx
    return named if isinstance(named, str) and not _DIGEST.fullmatch(named) else None


def _inner(onnx: Any) -> dict[str, Any]:
    return dict(onnx) if isinstance(onnx, dict) else {}


def with_onnx(spec: JobSpec, file: Path) -> JobSpec:
    """The spec with the digest and size of the ONNX file that it imports.

    Raises:
        Invalid: the file is none that the platform takes.
        TooLarge: it is too large.
    """
    from orchestrator.cli.onnx_file import check_onnx
    from orchestrator.client.artifacts import digest_of

    if spec.onnx is None:
        return spec
    check_onnx(file)
    sha256, size = digest_of(file)
    return spec.model_copy(
        update={"onnx": spec.onnx.model_copy(update={"file": sha256, "size": size})}
    )


def from_options(
    value: Mapping[str, Any], overrides: Sequence[Override], names: Mapping[str, str]
) -> JobSpec:
    """A job from the options of a command.

    Args:
        value: of a job file.
        overrides: keys to change in it.
        names: the option that sets a key of the top level, for messages.

    Raises:
        Located: they do not make a job.
    """

    def where(place: Place) -> tuple[int, str]:
        top = str(place[0]) if place else ""
        return 0, option_at(place, overrides) or names.get(top, "the job")

    try:
        return JobSpec.model_validate(apply(value, overrides), extra="forbid")
    except ValidationError as error:
        raise faults(error, where) from None


def cloned(job: JobView, overrides: Sequence[Override]) -> JobSpec:
    """A job's spec with changes, and where it came from; its code stays.

    Raises:
        Located: the changes do not make a job.
    """
    if any(one.place[0] == "code" for one in overrides):
        detail = "--set code: a clone runs the code of the job that it is cloned from"
        raise Invalid(detail, hint="to run other code, submit a job file")
    value = apply(job.spec.model_dump(mode="json"), overrides)
    value["cloned_from"] = job.id

    def where(place: Place) -> tuple[int, str]:
        return 0, option_at(place, overrides) or job.id

    try:
        return JobSpec.model_validate(value)
    except ValidationError as error:
        raise faults(error, where) from None


def _where(document: Document, overrides: Sequence[Override], place: Place) -> tuple[int, str]:
    option = option_at(place, overrides)
    if option is not None:
        return 0, option
    space = ("sweep", "space")
    if place[:2] == space and space not in document.lines:
        place = ("sweep", *place[2:])  # the short form
    return document.line(place), document.where(place)


def _beside(document: Document, overrides: Sequence[Override], path: Path, named: str) -> Path:
    option = option_at(("onnx",), overrides)
    around = Path.cwd() if option else path.absolute().parent
    try:
        file = (around / Path(named).expanduser()).resolve()
        there = file.is_file()
    except (OSError, RuntimeError, ValueError):
        file, there = around, False
    if not named or not there:
        detail = f"{option or document.where(('onnx', 'file'))}: onnx.file: no file {named!r}"
        raise Invalid(detail, hint=f"it is looked for from {around}")
    return file


def _named_folder(
    document: Document, overrides: Sequence[Override], path: Path, named: str
) -> Path:
    option = option_at(("code",), overrides)
    # What is typed in a shell is meant from where the shell is.
    around = Path.cwd() if option else path.absolute().parent
    where = option or document.where(("code",))
    try:
        folder = (around / Path(named).expanduser()).resolve()
        there = folder.is_dir()
    except (OSError, RuntimeError, ValueError):
        folder, there = around, False
    if not named or not there:
        detail = f"{where}: code: there is no folder {named!r}"
        raise Invalid(detail, hint=f"it is looked for from {around}")
    return folder


def _folder_beside(path: Path, spec: JobSpec) -> Path | None:
    """The job file's own folder, if the task's module lies there."""
    if spec.task is None or _top(spec.task) in OURS:
        return None
    folder = path.absolute().parent
    return folder.resolve() if _has_module(folder, _top(spec.task)) else None


def _missing_module(path: Path, spec: JobSpec, folder: Path | None, code: Code | None) -> list[str]:
    if spec.task is None or code is not None or spec.task.startswith(RECIPES):
        return []
    top = _top(spec.task)
    if folder is None:
        beside = f"{top}.py is not beside {path.name}"
        return [f"{beside}: {top} must be installed on the cluster, unless `code: FOLDER` has it"]
    if not _has_module(folder, top):
        return [f"{folder} has no module {top}: it must be installed on the cluster"]
    return []


def _top(task: str) -> str:
    return task.partition(":")[0].partition(".")[0]


def _has_module(folder: Path, top: str) -> bool:
    return (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file()
