"""What is wrong with an input, in words a person can act on; and what can be put right.

The slow half of ``edge_client.checks``: it runs only for what is not accepted at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from edge_client.classify import Array
from edge_client.errors import InputError
from schemas.signature import TensorSpec

MAX_INPUT_BYTES = 1024**3
"""Of one input. More is a mistake on any device that this is made for."""


def fitting_feed(
    specs: tuple[TensorSpec, ...], batched: tuple[str, ...], inputs: Any
) -> dict[str, Array]:
    """Inputs as the session takes them, by name.

    Args:
        specs: the model's inputs.
        batched: those that must have as many samples as each other.
        inputs: a mapping, or the one array of a model with one input.

    Raises:
        InputError: what does not fit, what was wanted and given, and what to do.
    """
    named = _by_name(specs, inputs)
    feed = {spec.name: fitting(spec, named[spec.name]) for spec in specs}
    counts = {name: len(feed[name]) for name in batched}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name!r} {n}" for name, n in counts.items())
        msg = f"the inputs must have as many samples as each other, not {said}"
        raise InputError(msg)
    return feed


def _by_name(specs: tuple[TensorSpec, ...], inputs: Any) -> Mapping[str, Any]:
    names = ", ".join(repr(spec.name) for spec in specs)
    if not isinstance(inputs, Mapping):
        if len(specs) == 1:
            return {specs[0].name: inputs}
        msg = f"the model has {len(specs)} inputs: give a mapping with {names}"
        raise InputError(msg, hint=f"model.predict({{{specs[0].name!r}: …}})")
    unknown = [name for name in inputs if name not in {spec.name for spec in specs}]
    if unknown:
        msg = f"the model has no input {str(unknown[0])[:100]!r}; it has {names}"
        raise InputError(msg)
    for spec in specs:
        if inputs.get(spec.name) is None:
            msg = f"input {spec.name!r} is missing"
            raise InputError(msg, hint=f"it is {_wanted(spec)}")
    return inputs


def fitting(spec: TensorSpec, value: Any) -> Array:
    """One input as the session takes it: in native byte order and C order.

    Raises:
        InputError: it does not fit.
    """
    array = _array(spec, value)
    _check_dtype(spec, array)
    _check_shape(spec, array)
    if array.nbytes > MAX_INPUT_BYTES:
        msg = f"input {spec.name!r} has {array.nbytes} bytes, more than {MAX_INPUT_BYTES}"
        raise InputError(msg, hint="give fewer samples at a time")
    # A scalar stays one: ascontiguousarray gives at least one dimension.
    array = np.asarray(array, dtype=np.dtype(spec.dtype), order="C")
    _check_values(spec, array)
    return array


def bounds(spec: TensorSpec) -> tuple[float, float] | tuple[int, int] | None:
    """The least and the greatest allowed value, in the input's own precision.

    None where every value that the dtype has is allowed. A float must be finite at least. A
    float bound is rounded to the dtype as the data are: 0.3 as a float32 is above 0.3.
    """
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        most = float(np.finfo(dtype).max)
        with np.errstate(over="ignore"):
            low, high = (float(np.asarray(x, dtype)) for x in spec.range or (-most, most))
        return max(-most, low), min(most, high) + 0.0  # never -0.0, whose bits are a large number
    if dtype.kind == "b" or spec.range is None:
        return None
    info = np.iinfo(dtype)
    least = max(info.min, math.ceil(spec.range[0]))
    greatest = min(info.max, math.floor(spec.range[1]))
    return None if (least, greatest) == (info.min, info.max) else (least, greatest)


def _wanted(spec: TensorSpec) -> str:
    return f"{spec.dtype}{list(spec.shape)}"


def _array(spec: TensorSpec, value: Any) -> Array:
    if isinstance(value, np.ma.MaskedArray):
        msg = f"input {spec.name!r} is a masked array: what stands where it is masked is not said"
        raise InputError(msg, hint="fill it: x.filled(value)")
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    kind = type(value).__name__
    if isinstance(value, str | bytes | bytearray | memoryview) or not _is_arraylike(value):
        hint = f"np.asarray(x, dtype={spec.dtype!r})" if _is_numbers(value) else None
        msg = f"input {spec.name!r} must be an array of {spec.dtype}, not {kind}"
        raise InputError(msg, hint=hint)
    try:
        return np.asarray(value)
    except Exception as error:  # what other libraries' arrays raise shares no base
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        msg = f"input {spec.name!r}: {kind} cannot be read as an array: {why}"
        raise InputError(msg) from error


def _is_arraylike(value: Any) -> bool:
    return hasattr(value, "__array__") or hasattr(value, "__array_interface__")


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple | int | float)


def _check_dtype(spec: TensorSpec, array: Array) -> None:
    if array.dtype.name == spec.dtype:
        return
    hint = f"convert it: x.astype({spec.dtype!r})"
    if array.dtype.kind in "OSUVMm":
        hint = "only arrays of numbers can be converted"
    if array.dtype.kind == "O":
        hint = f"it holds Python objects: np.asarray(x.tolist(), dtype={spec.dtype!r})"
    elif array.dtype.kind == "f" and np.dtype(spec.dtype).kind in "iu":
        hint = f"if the values are whole numbers: x.round().astype({spec.dtype!r})"
    msg = f"input {spec.name!r} must be {spec.dtype}, not {array.dtype.name[:40]}"
    raise InputError(msg, hint=hint)


def _check_shape(spec: TensorSpec, array: Array) -> None:
    wanted, given = spec.shape, array.shape
    if 0 in given and len(given) == len(wanted):
        _refuse_shape(spec, given, "there is nothing to infer in an empty array")
    if len(given) == len(wanted) and all(
        want in (-1, got) for want, got in zip(wanted, given, strict=True)
    ):
        return
    _refuse_shape(spec, given, _shape_hint(wanted, given))


def _shape_hint(wanted: tuple[int, ...], given: tuple[int, ...]) -> str | None:
    def same(want: tuple[int, ...], got: tuple[int, ...]) -> bool:
        return len(want) == len(got) and all(a in (-1, b) for a, b in zip(want, got, strict=True))

    if wanted[:1] in {(-1,), (1,)} and same(wanted[1:], given):
        return "add the batch: x[None]"
    if len(wanted) == 4 and len(given) == 4 and same(wanted, _first(given)):  # noqa: PLR2004 - images
        return "put the channels first: x.transpose(0, 3, 1, 2)"
    if len(wanted) == 4 and len(given) == 4 and same(wanted, _last(given)):  # noqa: PLR2004 - images
        return "put the channels last: x.transpose(0, 2, 3, 1)"
    if wanted and wanted[0] > 0 and same(wanted[1:], given[1:]):
        return f"the model takes exactly {wanted[0]} samples at a time"
    size = int(np.prod([abs(side) for side in wanted])) if wanted else 1
    each = size if -1 in wanted else 0
    if wanted.count(-1) == 1 and each and given and int(np.prod(given)) % each == 0:
        return f"it has as many values as x.reshape({', '.join(map(str, wanted))})"
    return None


def _first(given: tuple[int, ...]) -> tuple[int, ...]:
    return given[0], given[3], given[1], given[2]


def _last(given: tuple[int, ...]) -> tuple[int, ...]:
    return given[0], given[2], given[3], given[1]


def _refuse_shape(spec: TensorSpec, given: tuple[int, ...], hint: str | None) -> NoReturn:
    msg = f"input {spec.name!r} must have shape {list(spec.shape)}, not {list(given)}"
    raise InputError(msg, hint=hint)


def _check_values(spec: TensorSpec, array: Array) -> None:
    limits = bounds(spec)
    if limits is None:
        return
    low, high = limits
    if array.dtype.kind == "f":
        bad = ~np.isfinite(array)
        if bad.any():
            place = _place(bad)
            what = array[place].item()
            msg = f"input {spec.name!r} holds {_said(what)}: the first at {list(place)}"
            raise InputError(msg, hint="replace what is missing before inferring")
    outside = (array < low) | (array > high)
    if outside.any():
        place = _place(outside)
        least, most = array.min().item(), array.max().item()
        msg = (
            f"input {spec.name!r} must lie in {spec.range[0]}..{spec.range[1]},"  # type: ignore[index]
            f" not {least}..{most}; the first outside is {array[place].item()}"
            f" at {list(place)}"
        )
        raise InputError(msg, hint=_scale_hint(low, high, float(least), float(most)))


def _place(bad: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))


def _said(value: float) -> str:
    return "NaN" if value != value else "an infinity"  # noqa: PLR0124 - NaN alone differs from itself


def _scale_hint(low: float, high: float, least: float, most: float) -> str | None:
    if (low, high) == (0, 1) and least >= 0 and 1 < most <= 255:  # noqa: PLR2004 - pixels
        return "pixels of 0..255? divide by 255"
    if (low, high) == (0, 255) and least >= 0 and most <= 1:
        return "pixels of 0..1? multiply by 255"
    return None
