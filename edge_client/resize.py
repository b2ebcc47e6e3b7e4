"""Images at another size, as Pillow and torchvision (antialias) do it, by numpy alone.

A separable filter whose width grows with the reduction, so that no pixel is passed over
(Pillow's ``libImaging/Resample.c``; torchvision's ``resize(antialias=True)`` follows it): a
triangle for bilinear, Keys' cubic with a = -0.5 for bicubic (Keys, IEEE TASSP 29(6), 1981). For
uint8 the weights are rounded to 22 bits and each of the two passes to whole levels, as Pillow does,
so that the result is Pillow's. The width goes first; Pillow 13 begins with the height where that
is shorter, which differs by a level at most, or more only where a cubic's overshoot is clipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from edge_client.classify import Array

Interpolation = Literal["nearest", "bilinear", "bicubic"]

_BITS = 22
"""Of the weights of uint8 images: 32, less 8 for the pixel and 2 for what the sum may exceed."""

_BLOCK = 1 << 20
"""Values that are held as floats at a time."""

_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
_CUBIC = -0.5


def resize(image: Array, height: int, width: int, how: Interpolation) -> Array:
    """An image [h, w, channels] at [height, width, channels], of the same dtype.

    Integers are rounded and clipped to their range; floats are computed in float64.
    """
    if how == "nearest":
        rows, columns = _nearest(image.shape[0], height), _nearest(image.shape[1], width)
        return np.ascontiguousarray(image[rows[:, None], columns])
    if image.shape[1] != width:
        turned = _rows(np.ascontiguousarray(image.swapaxes(0, 1)), width, how)
        image = np.ascontiguousarray(turned.swapaxes(0, 1))
    if image.shape[0] != height:
        image = _rows(np.ascontiguousarray(image), height, how)
    return image


def covering(height: int, width: int, least_height: int, least_width: int) -> tuple[int, int]:
    """The size at which an image just covers another one, its aspect kept.

    For a square: the shorter side becomes the square's, the longer one is rounded down, as
    torchvision does.
    """
    if height * least_width >= width * least_height:
        return max(least_height, least_width * height // width), least_width
    return least_height, max(least_width, least_height * width // height)


def _nearest(size: int, wanted: int) -> npt.NDArray[np.intp]:
    step = size / wanted
    # Added up one by one, as Pillow does: at a tie the last bit decides.
    places = np.add.accumulate(np.concatenate([[step * 0.5], np.full(wanted - 1, step)]))
    return np.minimum(places.astype(np.intp), size - 1)


def _rows(image: Array, wanted: int, how: Interpolation) -> Array:
    """Resample the first axis. Only a block of what a filter reaches is held as floats."""
    size = image.shape[0]
    flat = image.reshape(size, -1)
    whole = image.dtype.kind in "ui"
    fixed = image.dtype == np.uint8
    found = np.empty((wanted, flat.shape[1]), image.dtype)
    for row, (start, weights) in enumerate(filters(size, wanted, how)):
        end, step = start + len(weights), max(1, _BLOCK // len(weights))
        if fixed:  # whole numbers below 2**53: exact, in whatever order they are added
            weights = np.trunc(weights * 2**_BITS + np.copysign(0.5, weights))  # noqa: PLW2901 - the same, as fixed point
        for at in range(0, flat.shape[1], step):
            level = weights @ flat[start:end, at : at + step].astype(np.float64)
            if fixed:
                level = np.floor((level + 2 ** (_BITS - 1)) / 2**_BITS)
            if whole:
                info = np.iinfo(image.dtype)
                level = np.clip(np.rint(level), info.min, info.max)
            found[row, at : at + step] = level
    return found.reshape(wanted, *image.shape[1:])


def filters(
    size: int, wanted: int, how: Interpolation
) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    """For each place: the first row that it is made of, and the weights from there on."""
    scale = size / wanted
    stretch = max(scale, 1.0)
    reach = _SUPPORT[how] * stretch
    for place in range(wanted):
        center = (place + 0.5) * scale
        start = max(0, int(center - reach + 0.5))
        end = min(size, int(center + reach + 0.5))
        offsets: npt.NDArray[np.float64] = (
            np.arange(start, end, dtype=np.float64) - center + 0.5
        ) / stretch
        weights = _triangle(offsets) if how == "bilinear" else _cubic(offsets)
        yield start, weights / weights.sum()


def _triangle(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    x, a = np.abs(x), _CUBIC
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))  # noqa: PLR2004 - Keys' two pieces


def center_crop(image: Array, height: int, width: int) -> Array:
    """The middle of an image [h, w, channels], which must be as large; torchvision's rounding."""
    top = round((image.shape[0] - height) / 2)
    left = round((image.shape[1] - width) / 2)
    return image[top : top + height, left : left + width]
