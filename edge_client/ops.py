"""What the manifest says is done to inputs before the graph, and to outputs after it.

In one place, for programs, the local server and runs over files. A step works on one sample
at a time, which is an array without the batch; only at the end are samples put together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, assert_never

import numpy as np

from edge_client.classify import Array, probabilities
from edge_client.errors import InferenceError, InputError, LoadError
from edge_client.images import MAX_IMAGE_PIXELS, decode, need_pillow
from edge_client.inference import Prediction
from edge_client.resize import center_crop, covering, resize
from schemas.model import Manifest
from schemas.ops import CenterCrop, Decode, Preprocess, Resize, Threshold, TopK, Transpose, Window

MAX_SAMPLES = 100_000
"""That one call may give or make: a window each step of one can make very many."""

MAX_MADE_BYTES = 256 * 1024**2
"""Of what one call makes, together: small files can hold large pictures."""

MAX_IMAGE_VALUES = 3 * MAX_IMAGE_PIXELS
"""Pixels by channels of what a resize makes, and passes through."""

Raw: TypeAlias = bytes | Array | Sequence[bytes | Array]

_PLANES = {"L": 1, "RGB": 3}
_IMAGE = 3
_Op = TypeVar("_Op")


class Preprocessor:
    """From what a sensor or a file gives to what the model takes."""

    def __init__(self, manifest: Manifest) -> None:
        """Take the steps of a manifest.

        Raises:
            LoadError: they cannot be done here, or not for this model.
        """
        inputs = manifest.signature.inputs
        if manifest.preprocess and len(inputs) > 1:
            msg = f"the manifest does not say to which of {len(inputs)} inputs its steps belong"
            raise LoadError(msg, hint="give arrays: predict instead of classify")
        self._spec, self._ops = inputs[0], manifest.preprocess
        self._encoded = bool(self._ops) and isinstance(self._ops[0], Decode)
        if any(isinstance(op, Decode) for op in self._ops[1:]):
            msg = "the manifest decodes what is no file any more: decode can only be the first step"
            raise LoadError(msg)
        if self._encoded:
            need_pillow()

    def prepare(self, raw: Raw) -> dict[str, Array]:
        """Do the steps.

        Args:
            raw: a list of samples, each with a shape of its own; or an array. An array is one
                image ([h, w] or [h, w, channels]) or several ([n, h, w, channels]) where the
                first step decodes, one series where it cuts windows, and else a batch. Bytes
                are one encoded image.

        Returns:
            The input by its name, [n, …], of the signature's dtype where no value changes by
            that; whether it fits is for ``Model.check`` to say.

        Raises:
            InputError: a step cannot be done; says which sample.
        """
        found: list[Array] = []
        size = 0
        # One sample at a time through all steps: a picture is large only between them.
        for i, one in enumerate(self._samples(raw)):
            made = self._through(i, one)
            found += made
            size += sum(sample.nbytes for sample in made)
            if len(found) > MAX_SAMPLES or size > MAX_MADE_BYTES:
                most = f"{MAX_SAMPLES} of {MAX_MADE_BYTES} bytes may be"
                msg = f"the first {i + 1} samples make {len(found)} of {size} bytes, {most}"
                raise InputError(msg, hint="give less at a time")
        return {self._spec.name: self._together(found)}

    def _through(self, number: int, sample: Any) -> list[Array]:
        """All steps of one sample. What is made is no view of something much larger."""
        samples = [sample]
        for op in self._ops:
            samples = [made for one in samples for made in _at(number, op, one)]
            if len(samples) > MAX_SAMPLES:
                msg = f"sample {number}: step {op.op} makes more than {MAX_SAMPLES} samples"
                raise InputError(msg, hint="give less at a time")
        return [one.copy() for one in samples] if self._encoded else samples

    def _samples(self, raw: Raw) -> list[Any]:
        first = self._ops[0] if self._ops else None
        if isinstance(raw, bytes | bytearray | memoryview):
            samples: list[Any] = [bytes(raw)]
        elif isinstance(raw, np.ndarray):
            one = isinstance(first, Window) or (self._encoded and raw.ndim <= _IMAGE)
            samples = [raw] if one else list(raw) if raw.ndim else []
        elif isinstance(raw, list | tuple):
            samples = list(raw)
        else:
            msg = f"give an array or a list of samples, not {type(raw).__name__}"
            raise InputError(msg)
        if not 0 < len(samples) <= MAX_SAMPLES:
            msg = f"give 1 to {MAX_SAMPLES} samples, not {len(samples)}"
            raise InputError(msg)
        for i, one in enumerate(samples):
            if not isinstance(one, np.ndarray | bytes):
                wanted = "an array or bytes" if self._encoded else "an array"
                msg = f"sample {i} must be {wanted}, not {type(one).__name__}"
                raise InputError(msg)
            if isinstance(one, bytes) and not self._encoded:
                msg = f"sample {i} is bytes, and the model decodes nothing"
                raise InputError(msg, hint="give an array")
        return samples

    def _together(self, samples: list[Array]) -> Array:
        shape = samples[0].shape
        odd = next((i for i, one in enumerate(samples) if one.shape != shape), None)
        if odd is not None:
            msg = f"sample {odd} became {list(samples[odd].shape)}, the first {list(shape)}"
            raise InputError(msg, hint="give samples of one shape, or one at a time")
        batch = np.stack(samples)
        wanted = np.dtype(self._spec.dtype)
        safe = batch.dtype != wanted and np.can_cast(batch.dtype, wanted, "safe")
        return batch.astype(wanted) if safe else batch


def _at(sample: int, op: Preprocess, value: Any) -> list[Array]:
    try:
        return _apply(op, value)
    except InputError as error:
        msg = f"sample {sample}: {error}"
        raise InputError(msg, hint=error.hint) from error


def _apply(op: Preprocess, value: Any) -> list[Array]:
    """One step of one sample; windows make several of it."""
    match op:
        case Decode():
            return [decode(value, op.mode) if isinstance(value, bytes) else _pixels(op, value)]
        case Resize():
            return [_resized(op, _image(op, value))]
        case CenterCrop():
            return [_cropped(op, _image(op, value))]
        case Transpose():
            if sorted(op.axes) != list(range(value.ndim)):
                msg = f"transpose to {list(op.axes)} of an array {list(value.shape)}"
                raise InputError(msg)
            return [value.transpose(op.axes)]
        case Window():
            return _windows(op, value)
        case _:
            assert_never(op)


def _pixels(op: Decode, value: Array) -> Array:
    """Pixels that are decoded already, as a camera gives them."""
    planes = _PLANES[op.mode]
    image = value[:, :, None] if value.ndim == _IMAGE - 1 else value
    if image.ndim != _IMAGE or image.shape[2] != planes or image.dtype != np.uint8:
        msg = f"pixels must be uint8[height, width, {planes}], not {value.dtype}{list(value.shape)}"
        raise InputError(msg, hint="or give the bytes of a PNG or JPEG file")
    return image


def _image(op: Resize | CenterCrop, value: Array) -> Array:
    if value.ndim != _IMAGE or 0 in value.shape or value.dtype.kind not in "uif":
        given = f"{value.dtype}{list(value.shape)}"
        msg = f"{op.op} takes an image [height, width, channels], not {given}"
        raise InputError(msg)
    return value


def _resized(op: Resize, image: Array) -> Array:
    height, width = op.height, op.width
    if op.keep_aspect:
        height, width = covering(image.shape[0], image.shape[1], height, width)
    # The width goes first: what is narrow and very high would be large in between.
    for tall in (height, image.shape[0]):
        if tall * width > MAX_IMAGE_PIXELS or tall * width * image.shape[2] > MAX_IMAGE_VALUES:
            msg = f"it would become {width} x {tall} pixels, more than {MAX_IMAGE_PIXELS} in all"
            raise InputError(msg, hint="cut it to a more usual form first")
    return resize(image, height, width, op.interpolation)


def _cropped(op: CenterCrop, image: Array) -> Array:
    if image.shape[0] < op.height or image.shape[1] < op.width:
        msg = f"the image is {list(image.shape[:2])}, smaller than [{op.height}, {op.width}]"
        raise InputError(msg)
    return center_crop(image, op.height, op.width)


def _windows(op: Window, series: Array) -> list[Array]:
    if series.ndim == 0 or len(series) < op.length:
        n = len(series) if series.ndim else 0
        msg = f"the series has {n} values, a window takes {op.length}"
        raise InputError(msg)
    starts = range(0, len(series) - op.length + 1, op.step)
    if len(starts) > MAX_SAMPLES:
        msg = f"the series makes {len(starts)} windows, more than {MAX_SAMPLES}"
        raise InputError(msg, hint="give less at a time")
    return [series[start : start + op.length] for start in starts]


@dataclass(frozen=True, slots=True)
class Guess:
    """A class with its probability. label: None where the model has no names."""

    index: int
    label: str | None
    probability: float


@dataclass(frozen=True, slots=True)
class Finding:
    """What a model says of one sample. known: the best guess is as sure as the manifest asks.

    top: the best guesses, best first, whether known or not.
    """

    known: bool
    top: tuple[Guess, ...]

    @property
    def label(self) -> str | None:
        """The name of the class, its number where it has none; None where it is not known."""
        best = self.top[0]
        return (best.label or str(best.index)) if self.known else None

    def record(self) -> dict[str, Any]:
        """As plain values, for JSON and tables."""
        best = self.top[0]
        return {
            "class": best.index if self.known else None,
            "label": self.label,
            "probability": best.probability,
            "top": [
                {"class": g.index, "label": g.label, "probability": g.probability} for g in self.top
            ],
        }


class Postprocessor:
    """From scores to findings. Without steps: the best class of each sample, always known.

    k: guesses per sample, at most.
    """

    def __init__(self, manifest: Manifest) -> None:
        top, least = _last(manifest.postprocess, TopK), _last(manifest.postprocess, Threshold)
        self.k = 1 if top is None else top.k
        self._least = 0.0 if least is None else least.min

    def finish(self, prediction: Prediction) -> list[Finding]:
        """One finding per sample.

        Raises:
            InferenceError: the first output is no scores over classes.
        """
        scores = prediction.scores
        if scores is None:
            msg = "the model's first output is no scores over classes [n, classes]"
            raise InferenceError(
                msg, hint="read the outputs themselves: predict instead of classify"
            )
        shares = probabilities(scores)
        # Stable, by the scores themselves: of equals the first, as Prediction.classes has it.
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self.k]
        name = _namer(prediction.labels)
        return [
            self._finding([Guess(int(c), name(int(c)), float(row[c])) for c in order])
            for row, order in zip(shares, best, strict=True)
        ]

    def _finding(self, top: list[Guess]) -> Finding:
        return Finding(top[0].probability >= self._least, tuple(top))


def _namer(labels: tuple[str, ...]) -> Callable[[int], str | None]:
    return lambda index: labels[index] if index < len(labels) else None


def _last(ops: Iterable[Any], kind: type[_Op]) -> _Op | None:
    return next((op for op in reversed(tuple(ops)) if isinstance(op, kind)), None)
