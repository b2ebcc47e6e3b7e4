"""The tensors that go into a model and come out of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.base import Wire

DType = Literal["uint8", "int8", "int32", "int64", "float16", "float32", "float64", "bool"]


class TensorSpec(Wire):
    """A named tensor. ``shape`` holds -1 for the batch; ``range`` is inclusive."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    dtype: DType
    shape: Annotated[tuple[int, ...], Field(max_length=8)]
    layout: Annotated[str, StringConstraints(max_length=16)] | None = None
    range: tuple[float, float] | None = None
    meaning: Annotated[str, StringConstraints(max_length=500)] | None = None


class Signature(Wire):
    """What goes in and what comes out."""

    inputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1, max_length=32)]
    outputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1, max_length=32)]
