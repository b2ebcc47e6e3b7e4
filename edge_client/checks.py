"""Inputs against the signature: a fast yes for what fits, a full answer for what does not.

For each input a predicate is made once per model, out of the few operations its dtype, shape and
range need; what it accepts goes to the session as it is. Everything else is looked at again,
slowly and in words (``edge_client.refuse``): there it is either put right, where no value
changes (byte order, memory layout), or refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from edge_client.classify import Array
from edge_client.errors import InferenceError
from edge_client.refuse import MAX_INPUT_BYTES, bounds, fitting_feed
from schemas.signature import TensorSpec

Inputs: TypeAlias = Array | Mapping[str, Array]
Feed: TypeAlias = dict[str, Array]
Predicate: TypeAlias = Callable[[Any], bool]

_UNSIGNED: dict[int, np.dtype[Any]] = {size: np.dtype(f"u{size}") for size in (2, 4, 8)}


def compile_check(
    specs: tuple[TensorSpec, ...], batched: tuple[str, ...]
) -> Callable[[Inputs], Feed]:
    """The check of a model's inputs: arrays by name, of its dtypes and shapes and C-contiguous.

    Args:
        specs: the inputs.
        batched: those of them whose first axis is one and the same in the graph.

    Returns:
        A function that raises InputError where something does not fit.
    """
    if len(specs) == 1:
        return _check_one(specs, fits(specs[0]))
    return _check_many(specs, batched)


def _check_one(specs: tuple[TensorSpec, ...], good: Predicate) -> Callable[[Inputs], Feed]:
    name = specs[0].name

    def check(inputs: Inputs) -> Feed:
        value: Any = inputs
        if type(inputs) is dict and len(inputs) == 1:
            value = inputs.get(name)
        if good(value):
            return {name: value}
        return fitting_feed(specs, (), inputs)

    return check


def _check_many(
    specs: tuple[TensorSpec, ...], batched: tuple[str, ...]
) -> Callable[[Inputs], Feed]:
    pairs = [(spec.name, fits(spec)) for spec in specs]

    def check(inputs: Inputs) -> Feed:
        if type(inputs) is dict and len(inputs) == len(pairs):
            feed: Feed = {}
            for name, good in pairs:
                value = inputs.get(name)
                if value is None or not good(value):
                    break
                feed[name] = value
            else:
                if len({len(feed[name]) for name in batched}) <= 1:
                    return feed
        return fitting_feed(specs, batched, inputs)

    return check


def fits(spec: TensorSpec) -> Predicate:
    """Whether a value is, as it stands, what the session takes; never an error."""
    dtype, shaped, valued = np.dtype(spec.dtype), _shape(spec.shape), values(spec)

    def good(x: Any) -> bool:
        return (
            type(x) is np.ndarray
            and x.dtype == dtype
            and shaped(x.shape)
            and x.flags.c_contiguous
            and x.nbytes <= MAX_INPUT_BYTES
            and (valued is None or valued(x))
        )

    return good


def _shape(wanted: tuple[int, ...]) -> Callable[[tuple[int, ...]], bool]:
    if -1 not in wanted:
        return wanted.__eq__
    tail, ndim = wanted[1:], len(wanted)
    if -1 not in tail:
        return lambda shape: shape[1:] == tail and len(shape) == ndim and shape[0] > 0

    def general(shape: tuple[int, ...]) -> bool:
        return (
            len(shape) == ndim
            and 0 not in shape
            and all(want in (-1, got) for want, got in zip(wanted, shape, strict=True))
        )

    return general


def values(spec: TensorSpec) -> Predicate | None:
    """Whether all values lie within the bounds; None where any do.

    ``argmin`` and ``argmax`` cost a fifth of ``min`` and ``max`` on small arrays, give a NaN's
    place where there is one (numpy: "the first occurrence"), and never warn; a comparison with
    NaN is false, so one look covers NaN, infinities and the range. Floats that may not be
    negative need one of them alone: without a sign they ascend as their bits do (IEEE 754),
    and a sign bit or NaN makes the bits greater than those of any number. -0.0 is then left
    to the slow look.
    """
    limits = bounds(spec)
    if limits is None:
        return None
    low, high = limits
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f" and low == 0:
        bits = _UNSIGNED[dtype.itemsize]
        top = int(np.asarray(high, dtype).view(bits))

        def unsigned(x: Array) -> bool:
            pattern = x.view(bits)
            return bool(pattern.item(pattern.argmax()) <= top)

        return unsigned
    if dtype.kind == "u" and low == 0:
        return lambda x: bool(x.item(x.argmax()) <= high)
    return lambda x: bool(low <= x.item(x.argmin()) and x.item(x.argmax()) <= high)


def compile_finite(specs: tuple[TensorSpec, ...]) -> Callable[[list[Any]], None]:
    """A look at raw outputs before they are given away; integers are always finite.

    Args:
        specs: the outputs, in the order in which the arrays come.

    Returns:
        A function that raises InferenceError where one holds NaN or an infinity.
    """
    floats = [(i, spec.name) for i, spec in enumerate(specs) if spec.dtype.startswith("float")]

    def look(raw: list[Any]) -> None:
        for i, name in floats:
            if not finite(raw[i]):
                msg = f"output {name!r} holds NaN or an infinity"
                raise InferenceError(msg)

    return look


def finite(x: Any) -> bool:
    """Whether an array of floats holds neither NaN nor an infinity; an empty one does not."""
    try:
        low, high = x.item(x.argmin()), x.item(x.argmax())
    except ValueError:
        return bool(x.size == 0)
    return bool(low - low == 0.0 and high - high == 0.0)
