"""The JSON bodies of the Open Inference Protocol v2, typed."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

Parameter = bool | int | float | str | None
Parameters = Annotated[dict[str, Parameter], msgspec.Meta(max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=256)]


class InTensor(msgspec.Struct):
    """An input. data: its JSON, read later by its datatype; unset where it comes as bytes."""

    name: Text
    shape: Annotated[list[int], msgspec.Meta(max_length=32)]
    datatype: Text
    parameters: Parameters = {}
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class OutWanted(msgspec.Struct):
    """An output that the request asks for."""

    name: Text
    parameters: Parameters = {}


class InferBody(msgspec.Struct):
    """What is posted to ``/infer``."""

    inputs: Annotated[list[InTensor], msgspec.Meta(max_length=64)]
    id: Text = ""
    parameters: Parameters = {}
    outputs: Annotated[list[OutWanted], msgspec.Meta(max_length=64)] | None = None


class OutTensor(msgspec.Struct, omit_defaults=True):
    """An output. data: flat, row-major; absent where ``binary_data_size`` says it follows."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] | None = None
    data: list[Any] | None = None


class InferAnswer(msgspec.Struct, omit_defaults=True):
    """What ``/infer`` answers. model_version: of what really ran."""

    model_name: str
    model_version: str
    outputs: list[OutTensor]
    id: str = ""


class TensorMetadata(msgspec.Struct):
    """An input or output of a model; -1 is the batch."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(msgspec.Struct):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class Duration(msgspec.Struct):
    """How many, and their nanoseconds together."""

    count: int = 0
    ns: int = 0


class InferStatistics(msgspec.Struct):
    """Of requests, as the statistics extension names them; nothing is ever cached."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration = msgspec.field(default_factory=Duration)
    cache_miss: Duration = msgspec.field(default_factory=Duration)


class ModelStatistics(msgspec.Struct):
    """Of one version since it was first asked. last_inference: ms since 1970, by this clock."""

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferStatistics
    batch_stats: list[Any] = []


class StatisticsAnswer(msgspec.Struct):
    """What ``/stats`` answers."""

    model_stats: list[ModelStatistics]


class IndexEntry(msgspec.Struct):
    """A model that is here."""

    name: str
    version: str
    state: str
    reason: str = ""


class Failure(msgspec.Struct):
    """The body of every refusal."""

    error: str
