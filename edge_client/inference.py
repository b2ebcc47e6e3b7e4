"""One loaded model: checked inputs in, finite outputs out.

Sessions use one intra-op thread and no spinning: a device's cores belong to the device
(spinning cost 7 times the CPU per inference at 20 Hz).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from edge_client.errors import InferenceError, InputError, LoadError, OutOfMemoryError
from edge_client.slots import Slot
from schemas.model import Manifest, Variant
from schemas.onnx_guard import UnsafeModelError, check_model
from schemas.signature import Signature, TensorSpec

Array: TypeAlias = npt.NDArray[Any]

_ORT_TYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
}
_SUM_TOLERANCE = 1e-3
_NO_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate memory", "Available memory of")
"""What onnxruntime says where an allocation failed."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says about a batch of n samples.

    outputs: by name. classes: [n] int64, the index of the highest score, and
    confidence: [n] float64, its probability; None when the first output is not
    scores over classes, [n, classes].
    """

    outputs: dict[str, Array]
    n: int
    classes: Array | None
    confidence: Array | None
    labels: tuple[str, ...] = ()

    def label(self, sample: int = 0) -> str | None:
        """The name of a sample's class, where the model has names."""
        if self.classes is None or not self.labels:
            return None
        return self.labels[int(self.classes[sample])]


class Model:
    """A session with its signature. Safe to use from many threads at once."""

    def __init__(
        self,
        onnx: bytes,
        *,
        signature: Signature,
        variant: Variant,
        labels: tuple[str, ...] = (),
        options: ort.SessionOptions | None = None,
    ) -> None:
        """Load.

        Args:
            onnx: the file's bytes, already verified.
            signature: what goes in and out, checked against the file.
            variant: its requirements name the execution providers to use.
            labels: names of the classes.
            options: of the session; those that serve when left out.

        Raises:
            LoadError: it cannot be loaded here, or is not what the signature says.
        """
        refuse_unsafe(onnx)
        self.signature = signature
        self.labels = labels
        self.provider, providers = _providers(variant)
        try:
            self._session = ort.InferenceSession(onnx, options or session_options(), providers)
        except Exception as error:  # onnxruntime's exceptions share no other base
            why = (str(error).splitlines() or [type(error).__name__])[0][:300]
            if isinstance(error, MemoryError) or says_no_memory(str(error)):
                msg = f"there is not enough memory to load the model: {why}"
                raise OutOfMemoryError(msg) from error
            msg = f"onnxruntime cannot load the model: {why}"
            raise LoadError(msg) from error
        used = self._session.get_providers()
        if self.provider not in used:
            msg = f"{self.provider} was asked for and is not used (only {', '.join(used)})"
            raise LoadError(msg)
        self._names = [spec.name for spec in signature.outputs]
        _compare("input", signature.inputs, self._session.get_inputs())
        _compare("output", signature.outputs, self._session.get_outputs())

    def predict(self, inputs: Array | Mapping[str, Array]) -> Prediction:
        """Check a batch, run it and classify: what programs call as ``ServedModel.predict``.

        Raises:
            InputError: ``check`` says no.
            InferenceError: onnxruntime failed, or an output is not finite.
        """
        feed = self.check(inputs)
        try:
            raw = self._session.run(self._names, feed)
        except Exception as error:  # onnxruntime's exceptions share no other base
            why = (str(error).splitlines() or [type(error).__name__])[0][:300]
            msg = f"the model failed: {why}"
            raise InferenceError(msg) from error
        outputs = dict(zip(self._names, raw, strict=True))
        for name, value in outputs.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                msg = f"output {name} holds NaN or an infinity"
                raise InferenceError(msg)
        first = next(iter(feed.values()))
        n = len(first) if first.ndim else 1
        classes, confidence = _classify(raw[0], n)
        return Prediction(outputs, n, classes, confidence, self.labels)

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        """The outputs for a feed that ``check`` gave: the session alone, as it is measured."""
        return list(self._session.run(self._names, dict(feed)))

    def end_profiling(self) -> str:
        """The file with the profile, of a session whose options asked for one."""
        return str(self._session.end_profiling())

    def check(self, inputs: Array | Mapping[str, Array]) -> dict[str, Array]:
        """Check inputs against the signature, as arrays by name.

        Raises:
            InputError: an input is missing, unknown, not finite, out of range, or of
                another dtype or shape.
        """
        specs = self.signature.inputs
        if not isinstance(inputs, Mapping):
            if len(specs) != 1:
                names = ", ".join(spec.name for spec in specs)
                msg = f"the model has {len(specs)} inputs: give a mapping with {names}"
                raise InputError(msg)
            inputs = {specs[0].name: inputs}
        unknown = set(inputs) - {spec.name for spec in specs}
        if unknown:
            msg = f"the model has no input {min(unknown)!r}"
            raise InputError(msg)
        return {spec.name: _checked(spec, inputs) for spec in specs}


def says_no_memory(message: str) -> bool:
    """Whether what onnxruntime says means that memory was short."""
    return any(sign in message for sign in _NO_MEMORY)


def refuse_unsafe(onnx: bytes) -> None:
    """Check a file before onnxruntime sees it.

    Raises:
        LoadError: the guard refuses it.
    """
    try:
        check_model(onnx)
    except UnsafeModelError as error:
        raise LoadError(str(error)) from error


def session_options() -> ort.SessionOptions:
    """How models are served, and measured."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def load_model(
    onnx: bytes,
    manifest: Manifest,
    variant_id: str,
    *,
    options: ort.SessionOptions | None = None,
) -> Model:
    """Load a variant of a manifest. options: of the session; those that serve when left out.

    Raises:
        LoadError: it cannot be loaded here.
    """
    variant = manifest.variant(variant_id)
    if variant is None:
        msg = f"the manifest has no variant {variant_id}"
        raise LoadError(msg)
    return Model(
        onnx,
        signature=manifest.signature,
        variant=variant,
        labels=manifest.labels,
        options=options,
    )


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in its slot, ready to serve."""

    slot: Slot
    model: Model


def _providers(variant: Variant) -> tuple[str, list[str]]:
    available = ort.get_available_providers()
    wanted = variant.requires.providers or ("CPUExecutionProvider",)
    usable = [name for name in wanted if name in available]
    if not usable:
        msg = f"it needs one of {', '.join(wanted)}; this device has {', '.join(available)}"
        raise LoadError(msg)
    return usable[0], usable


def _compare(side: str, specs: tuple[TensorSpec, ...], actual: list[Any]) -> None:
    found = {node.name: node for node in actual}
    if side == "input" and set(found) != {spec.name for spec in specs}:
        msg = f"the file has inputs {sorted(found)}, the signature says otherwise"
        raise LoadError(msg)
    for spec in specs:
        node = found.get(spec.name)
        if node is None:
            msg = f"the file has no {side} {spec.name}"
            raise LoadError(msg)
        dtype = _ORT_TYPES.get(node.type)
        if dtype != spec.dtype or not _same_shape(spec.shape, node.shape):
            msg = (
                f"{side} {spec.name} is {node.type}{node.shape} in the file and"
                f" {spec.dtype}{list(spec.shape)} in the signature"
            )
            raise LoadError(msg)


def _same_shape(spec: tuple[int, ...], actual: list[int | str | None]) -> bool:
    if len(spec) != len(actual):
        return False
    pairs = zip(spec, actual, strict=True)
    return all(not isinstance(b, int) or b <= 0 or a in {-1, b} for a, b in pairs)


def _checked(spec: TensorSpec, inputs: Mapping[str, Array]) -> Array:
    value = inputs.get(spec.name)
    if value is None:
        msg = f"input {spec.name!r} is missing"
        raise InputError(msg)
    value = np.asarray(value)
    if value.dtype.name != spec.dtype:
        msg = f"input {spec.name!r} must be {spec.dtype}, not {value.dtype.name}"
        raise InputError(msg)
    fits = len(value.shape) == len(spec.shape) and all(
        want in {-1, got} for want, got in zip(spec.shape, value.shape, strict=True)
    )
    if not fits or 0 in value.shape:
        msg = f"input {spec.name!r} must have shape {list(spec.shape)}, not {list(value.shape)}"
        raise InputError(msg)
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        msg = f"input {spec.name!r} holds NaN or an infinity"
        raise InputError(msg)
    if spec.range is not None:
        low, high = spec.range
        least, most = float(value.min()), float(value.max())
        if least < low or most > high:
            msg = f"input {spec.name!r} must lie in {low}..{high}, not {least}..{most}"
            raise InputError(msg)
    # A scalar stays one: ascontiguousarray gives at least one dimension.
    return np.asarray(value, order="C")


def _classify(scores: Array, n: int) -> tuple[Array | None, Array | None]:
    """Classes and probabilities; a softmax is put over scores that are no probabilities."""
    if scores.ndim != 2 or scores.shape[0] != n or scores.dtype.kind != "f":  # noqa: PLR2004 - [n, classes]
        return None, None
    values = scores.astype(np.float64)
    classes = values.argmax(axis=1)
    sums = values.sum(axis=1)
    if values.min() < 0 or np.abs(sums - 1).max() > _SUM_TOLERANCE:
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
    return classes, values[np.arange(n), classes]
