"""Inferences as gRPC carries them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edge_client.server.answer import all_wanted, texts_of
from edge_client.server.datatypes import (
    BYTES,
    datatype_of,
    dtype_of,
    elements,
    from_bytes,
    texts_from_bytes,
    texts_to_bytes,
    to_bytes,
)
from edge_client.server.failures import invalid
from edge_client.server.grpc_messages import MESSAGES
from edge_client.server.messages import Parameter
from edge_client.server.request import Ask, Value, read_terms, read_wanted, refuse_shared
from edge_client.server.served import Served

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
_MOST = 64
_Response = MESSAGES["ModelInferResponse"]


def ask_of(request: Any, began: float) -> Ask:
    """Read a ``ModelInferRequest``.

    Raises:
        RequestError: it is not what the protocol says, or asks for what is not done here.
    """
    raw = request.raw_input_contents
    if len(request.inputs) > _MOST or len(request.outputs) > _MOST:
        msg = f"at most {_MOST} inputs and {_MOST} outputs"
        raise invalid(msg)
    if raw and len(raw) != len(request.inputs):
        msg = f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs"
        raise invalid(msg)
    inputs: dict[str, Value] = {}
    for number, tensor in enumerate(request.inputs):
        if tensor.name in inputs:
            msg = f"input {tensor.name[:100]!r} is given twice"
            raise invalid(msg)
        inputs[tensor.name] = _value(tensor, raw[number] if raw else None)
    terms = read_terms(_plain(request.parameters), began)
    wanted = tuple(
        read_wanted(output.name, _plain(output.parameters), binary=True)
        for output in request.outputs
    )
    return Ask(
        model=request.model_name,
        version=request.model_version,
        began=began,
        inputs=inputs,
        id=request.id,
        priority=terms.priority,
        deadline=terms.deadline,
        wanted=wanted or None,
        binary=True,
        prepare=terms.prepare,
        finish=terms.finish,
    )


def response_of(ask: Ask, served: Served) -> Any:
    """A ``ModelInferResponse``, its tensors as bytes.

    Raises:
        RequestError: an output is asked for that the model does not have.
    """
    response = _Response(
        model_name=served.slot.model, model_version=str(served.slot.version), id=ask.id
    )
    for wanted in all_wanted(ask, served):
        if wanted.classes or wanted.name not in served.outputs:
            shape, texts = texts_of(wanted, served)
            response.outputs.add(name=wanted.name, datatype=BYTES, shape=shape)
            response.raw_output_contents.append(texts_to_bytes(texts))
        else:
            array = served.outputs[wanted.name]
            datatype = datatype_of(array.dtype)
            response.outputs.add(name=wanted.name, datatype=datatype, shape=array.shape)
            response.raw_output_contents.append(to_bytes(array))
    return response


def _value(tensor: Any, raw: bytes | None) -> Value:
    where = f"input {tensor.name[:100]!r}"
    refuse_shared(tensor.parameters, where)
    shape = list(tensor.shape)
    if raw is not None:
        if tensor.HasField("contents"):
            msg = f"{where} has both contents and raw_input_contents"
            raise invalid(msg)
        if tensor.datatype == BYTES:
            return _counted(texts_from_bytes(memoryview(raw), where), shape, where)
        return from_bytes(memoryview(raw), tensor.datatype, shape, where)
    if tensor.datatype == BYTES:
        return _counted(list(tensor.contents.bytes_contents), shape, where)
    return _typed(tensor, shape, where)


def _typed(tensor: Any, shape: list[int], where: str) -> Value:
    dtype = dtype_of(tensor.datatype, where)
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        msg = f"{where}: {tensor.datatype} goes in raw_input_contents only"
        raise invalid(msg)
    values = getattr(tensor.contents, field)
    if len(values) != elements(shape, where):
        msg = f"{where}: {field} has {len(values)} elements, shape {shape} says otherwise"
        raise invalid(msg)
    try:
        # A list, so that numpy refuses what does not fit a smaller type.
        return np.array(list(values), dtype).reshape(shape)
    except OverflowError as error:
        msg = f"{where}: {error}"
        raise invalid(msg) from error


def _counted(texts: list[bytes], shape: list[int], where: str) -> list[bytes]:
    if len(texts) != elements(shape, where):
        msg = f"{where}: shape {shape} and {len(texts)} elements do not fit"
        raise invalid(msg)
    return texts


def _plain(parameters: Mapping[str, Any]) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    for name, value in parameters.items():
        chosen = value.WhichOneof("parameter_choice")
        found[name] = getattr(value, chosen) if chosen else None
    return found
