"""What is checked of a manifest before it gets a number."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterable, Iterator

from orchestrator.errors import Invalid
from orchestrator.services import outcomes
from orchestrator.services.ports import Artifacts
from schemas.errors import FieldError
from schemas.measure import Accuracy, ModelFile
from schemas.model import Manifest, Variant
from schemas.onnx_guard import UnsafeModelError, check_model
from schemas.transfer import leaves_digest

_MAX_TOLD = 50
_ROUNDING = 1e-4
"""By how much a figure may miss what it says: people round."""

_ONE_AT_A_TIME = threading.Lock()
"""A model is read whole, and may have half a gigabyte."""


def check(name: str, manifest: Manifest, artifacts: Artifacts) -> None:
    """See that a manifest is whole, its models safe, and its figures those of its files.

    Raises:
        Invalid: it is not; with each fault, up to 50.
    """
    errors = [*_of_itself(name, manifest), *_of_files(manifest, artifacts)]
    if not errors:
        errors = [*_of_models(manifest, artifacts), *_of_outcomes(manifest, artifacts)]
    if errors:
        raise _refusal(errors)


def check_there(manifest: Manifest, artifacts: Artifacts) -> None:
    """See that files that were checked, and are held now, were not collected in between.

    Raises:
        Invalid: some were.
    """
    errors = [
        FieldError(
            field=f"file {file.path}",
            message=f"artifact {file.sha256} was collected; upload it again",
        )
        for file in dict.fromkeys(manifest.files())
        if not artifacts.exists(file.sha256, anew=True)
    ]
    if errors:
        raise _refusal(errors)


def _refusal(errors: list[FieldError]) -> Invalid:
    msg = f"the manifest cannot be registered: {errors[0].field}: {errors[0].message}"
    return Invalid(msg, fields=errors[:_MAX_TOLD])


def _of_itself(name: str, manifest: Manifest) -> Iterator[FieldError]:
    """Faults that need nothing but the manifest."""
    if manifest.model != name:
        text = f"is {manifest.model!r}, but it is registered as {name!r}"
        yield FieldError(field="model", message=text)
    signature = manifest.signature
    for field, names in (
        ("variants", [variant.id for variant in manifest.variants]),
        ("exports", [export.format for export in manifest.exports]),
        ("signature.inputs", [tensor.name for tensor in signature.inputs]),
        ("signature.outputs", [tensor.name for tensor in signature.outputs]),
    ):
        twice = _repeated(names)
        if twice:
            yield FieldError(field=field, message=f"ids repeat: {', '.join(twice)}")
    paths = _repeated(file.path for file in dict.fromkeys(manifest.files()))
    if paths:
        text = f"different files have the same path: {', '.join(paths)}"
        yield FieldError(field="files", message=text)
    for variant in manifest.variants:
        yield from _of_variant(variant)


def _of_variant(variant: Variant) -> Iterator[FieldError]:
    where = f"variant {variant.id}"
    splits = _repeated(f"{one.metric} on {one.split}" for one in variant.accuracy)
    if splits:
        yield FieldError(field=where, message=f"measured twice: {', '.join(splits)}")
    for one in variant.accuracy:
        if not one.low - _ROUNDING <= one.value <= one.high + _ROUNDING:
            text = f"{one.metric} {one.value} is not within its interval {one.low}..{one.high}"
            yield FieldError(field=where, message=text)
    if any(benchmark.device_class is not None for benchmark in variant.benchmarks):
        text = "has figures of a device class; devices send theirs with `argosy-edge bench`"
        yield FieldError(field=where, message=text)


def _of_files(manifest: Manifest, store: Artifacts) -> Iterator[FieldError]:
    """Files that are not there, or are not what the manifest says."""
    for file in dict.fromkeys(manifest.files()):
        text = _fault_of_file(file, store)
        if text is not None:
            yield FieldError(field=f"file {file.path}", message=text)


def _fault_of_file(file: ModelFile, store: Artifacts) -> str | None:
    if not store.exists(file.sha256):
        return f"artifact {file.sha256} has not been uploaded"
    size = store.size(file.sha256)
    if size != file.size:
        return f"has {size} bytes, not {file.size}"
    if leaves_digest(store.leaves(file.sha256)) != file.leaves_sha256:
        return "leaves_sha256 is not that of its chunks"
    return None


def _of_models(manifest: Manifest, store: Artifacts) -> Iterator[FieldError]:
    """Models that are not safe to open, whoever made them."""
    for file in dict.fromkeys(variant.file for variant in manifest.variants):
        try:
            with _ONE_AT_A_TIME:
                check_model(outcomes.whole(file.sha256, store))
        except UnsafeModelError as error:
            yield FieldError(field=f"file {file.path}", message=str(error))


def _of_outcomes(manifest: Manifest, store: Artifacts) -> Iterator[FieldError]:
    """Outcomes that are not of as many samples, or not of the accuracy, that stands beside them."""
    for variant in manifest.variants:
        for one in variant.accuracy:
            text = _fault_of_outcomes(one, store)
            if text is not None:
                where = f"variant {variant.id}: outcomes on {one.split}"
                yield FieldError(field=where, message=text)


def _fault_of_outcomes(accuracy: Accuracy, store: Artifacts) -> str | None:
    if accuracy.outcomes is None:
        return None
    try:
        kept = outcomes.read(accuracy, store)
    except ValueError as error:
        return str(error)
    right = int.from_bytes(kept.bits).bit_count()
    if not math.isclose(right / kept.n, accuracy.value, abs_tol=_ROUNDING):
        return f"{right} of {kept.n} are right, which is not {accuracy.value}"
    return None


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]
