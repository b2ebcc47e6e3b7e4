"""What is done to inputs before the graph, and to outputs after it: typed, never code.

Only what a graph cannot do well is here; normalization, layout, the step from uint8 to
float and softmax belong into the graph.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Wire

Side = Annotated[int, Field(ge=1, le=16_384)]
Axis = Annotated[int, Field(ge=0, le=7)]


class Decode(Wire):
    """An encoded image (PNG, JPEG) becomes uint8 pixels, (height, width, channels)."""

    op: Literal["decode"] = "decode"
    mode: Literal["L", "RGB"] = "RGB"


class Resize(Wire):
    """Pixels are resized. keep_aspect: the shorter side becomes the target; a crop follows."""

    op: Literal["resize"] = "resize"
    height: Side
    width: Side
    keep_aspect: bool = False
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"


class CenterCrop(Wire):
    """The middle is cut out."""

    op: Literal["center_crop"] = "center_crop"
    height: Side
    width: Side


class Transpose(Wire):
    """Axes are reordered, the batch apart. axes: a permutation."""

    op: Literal["transpose"] = "transpose"
    axes: Annotated[tuple[Axis, ...], Field(min_length=1, max_length=8)]


class Window(Wire):
    """A series is cut into windows of ``length`` samples, one each ``step``."""

    op: Literal["window"] = "window"
    length: Annotated[int, Field(ge=1, le=10_000_000)]
    step: Annotated[int, Field(ge=1, le=10_000_000)]


class TopK(Wire):
    """The k most probable classes, best first."""

    op: Literal["top_k"] = "top_k"
    k: Annotated[int, Field(ge=1, le=10_000)]


class Threshold(Wire):
    """Answers whose probability is below ``min`` are given as unknown."""

    op: Literal["threshold"] = "threshold"
    min: Annotated[float, Field(ge=0, le=1)]


Preprocess = Annotated[Decode | Resize | CenterCrop | Transpose | Window, Field(discriminator="op")]
Postprocess = Annotated[TopK | Threshold, Field(discriminator="op")]
