"""What a job begins with: a registered version, a file made elsewhere, packed code."""

from __future__ import annotations

from typing import NoReturn

from orchestrator.errors import Conflict, Invalid, NotFound
from orchestrator.services.ports import Artifacts, Transaction
from orchestrator.services.versions import usable
from schemas.errors import FieldError
from schemas.jobfile import Batch, JobSpec
from schemas.model import Manifest


def manifest_of(tx: Transaction, spec: JobSpec) -> Manifest | None:
    """The manifest of the version that a job infers with, or goes on from.

    Raises:
        NotFound, Revoked, Conflict: there is none, or it cannot be used any more.
        Invalid: it is not fit for the job.
    """
    if spec.batch is not None:
        manifest = _usable(tx, spec.batch.model)
        _check_variant(spec.batch, manifest)
        return manifest
    if spec.base is None:
        return None
    manifest = _usable(tx, spec.base)
    _check_base(spec, spec.base, manifest)
    return manifest


def readable(tx: Transaction, spec: JobSpec, sha256: str) -> bool:
    """Whether a job needs an artifact: its code, its file, or files of its version.

    Raises:
        NotFound, Revoked, Conflict, Invalid: as for ``manifest_of``.
    """
    if spec.code is not None and spec.code.sha256 == sha256:
        return True
    if spec.onnx is not None:
        return spec.onnx.file == sha256
    manifest = manifest_of(tx, spec)
    if manifest is None:
        return False
    if spec.batch is not None:
        return any(file.sha256 == sha256 for file in manifest.files())
    return manifest.weights is not None and manifest.weights.sha256 == sha256


def uploads(spec: JobSpec) -> dict[str, str]:
    """What a job's client uploads before it: digest → the field that names it."""
    found = {}
    if spec.code is not None:
        found[spec.code.sha256] = "code"
    if spec.onnx is not None:
        found[spec.onnx.file] = "onnx.file"
    return found


def check_uploads(artifacts: Artifacts, spec: JobSpec) -> None:
    """See that what a job's client uploads before it is here, and is what it says.

    Asks the store, so never within a transaction.

    Raises:
        NotFound: it is not.
        Conflict: it has another size.
    """
    if spec.code is not None:
        again = "pack the folder again: `argosy job submit` does"
        hint = "`argosy job submit` uploads it"
        _check_upload(artifacts, "code", spec.code.sha256, spec.code.size, hint, again)
    if spec.onnx is not None:
        again = "read its size again: `argosy model register` does"
        hint = "`argosy model register` uploads it"
        _check_upload(artifacts, "onnx.file", spec.onnx.file, spec.onnx.size, hint, again)


def _check_upload(
    artifacts: Artifacts, field: str, sha256: str, size: int, hint: str, again: str
) -> None:
    if not artifacts.exists(sha256, anew=True):
        msg = f"{field}: artifact {sha256} has not been uploaded"
        raise NotFound(msg, hint=f"{hint}; or PUT /v1/artifacts/{sha256} first")
    there = artifacts.size(sha256)
    if there != size:
        msg = f"{field}: artifact {sha256} has {there} bytes, not {size}"
        raise Conflict(msg, hint=again)


def _usable(tx: Transaction, ref: str) -> Manifest:
    name, _, number = ref.partition("@")
    return Manifest.model_validate_json(usable(tx, name, int(number)).manifest)


def _check_variant(batch: Batch, manifest: Manifest) -> None:
    if batch.variant is not None and manifest.variant(batch.variant) is None:
        there = ", ".join(variant.id for variant in manifest.variants)
        text = f"{batch.model} has no variant {batch.variant!r}; it has {there}"
        _refuse("batch.variant", text)


def _check_base(spec: JobSpec, base: str, manifest: Manifest) -> None:
    """A base's weights must be there, be of the task, and lead to a model of its name."""
    if manifest.weights is None:
        why = "was made elsewhere" if manifest.lineage.source else "was registered without them"
        text = f"{base} has no weights to go on from: it {why}"
        _refuse("base", text, "name a version that a training made")
    task = manifest.lineage.task
    if task is not None and task != spec.task:
        _refuse("task", f"{base} is of the task {task}, not {spec.task}")
    if spec.model is None and spec.name != manifest.model:
        text = f"the result would be registered as {spec.name!r}, not as {manifest.model!r}"
        _refuse("model", text, f"set model: {manifest.model}, or another name on purpose")


def _refuse(field: str, text: str, hint: str | None = None) -> NoReturn:
    msg = f"{field}: {text}"
    raise Invalid(msg, hint=hint, fields=[FieldError(field=field, message=text)])
