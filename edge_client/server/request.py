"""One inference as both protocols ask for it, and how it is read from an HTTP body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from edge_client.inference import Array
from edge_client.server.datatypes import (
    BYTES,
    elements,
    from_bytes,
    from_json,
    texts_from_bytes,
    texts_from_json,
)
from edge_client.server.failures import Kind, RequestError, invalid
from edge_client.server.messages import InferBody, InTensor, Parameter

Value: TypeAlias = Array | list[bytes]
"""An input: numbers, or the elements of a BYTES tensor."""

_MICROSECONDS = 1e-6
_MAX_CLASSES = 10_000


class Wanted(msgspec.Struct, frozen=True):
    """An output of the answer. classes: how many of the best, as text; 0: the tensor itself."""

    name: str
    binary: bool = False
    classes: int = 0


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a model. A Struct, as making a dataclass costs as much as a small run.

    began: when the request had arrived, by ``time.perf_counter``; deadline: by the same clock.
    read: seconds that reading took. priority: 0 is the default, 1 the most urgent.
    wanted: None for all outputs, in binary where ``binary`` says so.
    """

    model: str
    version: str
    began: float
    inputs: Mapping[str, Value]
    id: str = ""
    priority: int = 0
    deadline: float | None = None
    read: float = 0.0
    wanted: tuple[Wanted, ...] | None = None
    binary: bool = False
    prepare: bool = False
    finish: bool = False


class Terms(msgspec.Struct, frozen=True):
    """What the parameters of a request ask for."""

    priority: int = 0
    deadline: float | None = None
    binary: bool = False
    prepare: bool = False
    finish: bool = False


_PLAIN = Terms()
_BODY = msgspec.json.Decoder(InferBody)
_NO_PARAMETERS: Mapping[str, Parameter] = {}


@dataclass(slots=True)
class _Blobs:
    """The bytes after the JSON, taken in the order of the inputs."""

    data: memoryview
    at: int = 0

    def take(self, size: Parameter, where: str) -> memoryview:
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            msg = f"{where}: binary_data_size must be a number of bytes"
            raise invalid(msg)
        if self.at + size > len(self.data):
            msg = f"{where}: {size} bytes are announced and {len(self.data) - self.at} are left"
            raise invalid(msg)
        self.at += size
        return self.data[self.at - size : self.at]


class Posted(msgspec.Struct, frozen=True):
    """An HTTP request for an inference. json_size: where tensors follow the JSON as bytes."""

    model: str
    version: str
    body: bytes
    began: float
    json_size: int | None = None


def read_ask(posted: Posted) -> Ask:
    """Read a body.

    Raises:
        RequestError: it is not what the protocol says, or asks for what is not done here.
    """
    view = memoryview(posted.body)
    size = len(view) if posted.json_size is None else posted.json_size
    if size > len(view):
        msg = f"Inference-Header-Content-Length is {size}, the body has {len(view)} bytes"
        raise invalid(msg)
    try:
        body = _BODY.decode(view[:size])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        msg = f"the body is no inference request: {str(error)[:300]}"
        raise invalid(msg) from error
    blobs = _Blobs(view[size:])
    inputs: dict[str, Value] = {}
    for tensor in body.inputs:
        if tensor.name in inputs:
            msg = f"input {tensor.name!r} is given twice"
            raise invalid(msg)
        inputs[tensor.name] = _value(tensor, blobs)
    if blobs.at != len(blobs.data):
        msg = f"{len(blobs.data) - blobs.at} bytes follow the last input"
        raise invalid(msg)
    terms = read_terms(body.parameters, posted.began) if body.parameters else _PLAIN
    wanted = body.outputs
    return Ask(
        model=posted.model,
        version=posted.version,
        began=posted.began,
        inputs=inputs,
        id=body.id,
        priority=terms.priority,
        deadline=terms.deadline,
        wanted=None
        if wanted is None
        else tuple(read_wanted(w.name, w.parameters, binary=terms.binary) for w in wanted),
        binary=terms.binary,
        prepare=terms.prepare,
        finish=terms.finish,
    )


def read_terms(parameters: Mapping[str, Parameter], began: float) -> Terms:
    """The parameters of a request; those that mean nothing here are left alone.

    Raises:
        RequestError: one is of the wrong type, or asks for a sequence.
    """
    if parameters.get("sequence_id"):
        msg = "sequences are not supported: each request stands alone (leave out sequence_id)"
        raise RequestError(Kind.UNSUPPORTED, msg)
    timeout = _whole(parameters, "timeout")
    return Terms(
        priority=_whole(parameters, "priority"),
        deadline=began + timeout * _MICROSECONDS if timeout else None,
        binary=_flag(parameters, "binary_data_output"),
        prepare=_flag(parameters, "preprocess"),
        finish=_flag(parameters, "postprocess"),
    )


def read_wanted(name: str, parameters: Mapping[str, Parameter], *, binary: bool) -> Wanted:
    """An output with its parameters. binary: what holds where they do not say.

    Raises:
        RequestError: one is of the wrong type, or asks for shared memory.
    """
    if not parameters:
        return Wanted(name, binary)
    refuse_shared(parameters, f"output {name!r}")
    classes = _whole(parameters, "classification")
    if classes > _MAX_CLASSES:
        msg = f"output {name!r}: classification is at most {_MAX_CLASSES}"
        raise invalid(msg)
    if parameters.get("binary_data") is not None:
        binary = _flag(parameters, "binary_data")
    return Wanted(name, binary, classes)


def refuse_shared(parameters: Mapping[str, Parameter], where: str) -> None:
    """Refuse a tensor that lies in shared memory.

    Raises:
        RequestError: it does.
    """
    if "shared_memory_region" in parameters:
        msg = f"{where}: shared memory is not supported; send the data"
        raise RequestError(Kind.UNSUPPORTED, msg)


def _value(tensor: InTensor, blobs: _Blobs) -> Value:
    where = f"input {tensor.name!r}"
    parameters = tensor.parameters or _NO_PARAMETERS
    if parameters:
        refuse_shared(parameters, where)
    if "binary_data_size" in parameters:
        if tensor.data is not msgspec.UNSET:
            msg = f"{where} has both data and binary_data_size"
            raise invalid(msg)
        data = blobs.take(parameters["binary_data_size"], where)
        if tensor.datatype == BYTES:
            return _counted(texts_from_bytes(data, where), tensor, where)
        return from_bytes(data, tensor.datatype, tensor.shape, where)
    if not isinstance(tensor.data, msgspec.Raw):
        msg = f"{where} has no data"
        raise invalid(msg)
    if tensor.datatype == BYTES:
        texts = texts_from_json(tensor.data, parameters.get("content_type"), where)
        return _counted(texts, tensor, where)
    return from_json(tensor.data, tensor.datatype, tensor.shape, where)


def _counted(texts: list[bytes], tensor: InTensor, where: str) -> list[bytes]:
    expected = elements(tensor.shape, where)
    if len(texts) != expected:
        msg = f"{where}: shape {tensor.shape} has {expected} elements, the data has {len(texts)}"
        raise invalid(msg)
    return texts


def _whole(parameters: Mapping[str, Parameter], name: str) -> int:
    value = parameters.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        msg = f"parameter {name} must be a whole number, 0 or above"
        raise invalid(msg)
    return value


def _flag(parameters: Mapping[str, Parameter], name: str) -> bool:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        msg = f"parameter {name} must be true or false"
        raise invalid(msg)
    return bool(value)
