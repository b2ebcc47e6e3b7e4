"""The messages of ``inference.GRPCInferenceService``, made at run time.

Names, numbers and types of the fields are those of the Open Inference Protocol's
``open_inference_grpc.proto`` and, for statistics and the repository, of Triton's
``grpc_service.proto``. They stand here as a table and live in a
pool of their own: no generated code that has to fit the installed protobuf, and no clash with a
program that has loaded another copy of the same messages.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)

SERVICE = "inference.GRPCInferenceService"
_PACKAGE = "inference"
_KINDS = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _KINDS.TYPE_BOOL,
    "string": _KINDS.TYPE_STRING,
    "bytes": _KINDS.TYPE_BYTES,
    "int32": _KINDS.TYPE_INT32,
    "int64": _KINDS.TYPE_INT64,
    "uint32": _KINDS.TYPE_UINT32,
    "uint64": _KINDS.TYPE_UINT64,
    "float": _KINDS.TYPE_FLOAT,
    "double": _KINDS.TYPE_DOUBLE,
}

# A line per field: its number, its name, its type; * repeats it, % makes it a map from text,
# | makes it one of several of which one is set.
_MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "1 live bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "1 ready bool",
    "ModelReadyRequest": "1 name string, 2 version string",
    "ModelReadyResponse": "1 ready bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "1 name string, 2 version string, 3 extensions *string",
    "ModelMetadataRequest": "1 name string, 2 version string",
    "ModelMetadataResponse": (
        "1 name string, 2 versions *string, 3 platform string,"
        " 4 inputs *ModelMetadataResponse.TensorMetadata,"
        " 5 outputs *ModelMetadataResponse.TensorMetadata"
    ),
    "ModelMetadataResponse.TensorMetadata": "1 name string, 2 datatype string, 3 shape *int64",
    "InferParameter": (
        "1 bool_param |bool, 2 int64_param |int64, 3 string_param |string, 4 double_param |double,"
        " 5 uint64_param |uint64"
    ),
    "InferTensorContents": (
        "1 bool_contents *bool, 2 int_contents *int32, 3 int64_contents *int64,"
        " 4 uint_contents *uint32, 5 uint64_contents *uint64, 6 fp32_contents *float,"
        " 7 fp64_contents *double, 8 bytes_contents *bytes"
    ),
    "ModelInferRequest": (
        "1 model_name string, 2 model_version string, 3 id string, 4 parameters %InferParameter,"
        " 5 inputs *ModelInferRequest.InferInputTensor,"
        " 6 outputs *ModelInferRequest.InferRequestedOutputTensor, 7 raw_input_contents *bytes"
    ),
    "ModelInferRequest.InferInputTensor": (
        "1 name string, 2 datatype string, 3 shape *int64, 4 parameters %InferParameter,"
        " 5 contents InferTensorContents"
    ),
    "ModelInferRequest.InferRequestedOutputTensor": ("1 name string, 2 parameters %InferParameter"),
    "ModelInferResponse": (
        "1 model_name string, 2 model_version string, 3 id string, 4 parameters %InferParameter,"
        " 5 outputs *ModelInferResponse.InferOutputTensor, 6 raw_output_contents *bytes"
    ),
    "ModelInferResponse.InferOutputTensor": (
        "1 name string, 2 datatype string, 3 shape *int64, 4 parameters %InferParameter,"
        " 5 contents InferTensorContents"
    ),
    "ModelStatisticsRequest": "1 name string, 2 version string",
    "ModelStatisticsResponse": "1 model_stats *ModelStatistics",
    "ModelStatistics": (
        "1 name string, 2 version string, 3 last_inference uint64, 4 inference_count uint64,"
        " 5 execution_count uint64, 6 inference_stats InferStatistics"
    ),
    "InferStatistics": (
        "1 success StatisticDuration, 2 fail StatisticDuration, 3 queue StatisticDuration,"
        " 4 compute_input StatisticDuration, 5 compute_infer StatisticDuration,"
        " 6 compute_output StatisticDuration, 7 cache_hit StatisticDuration,"
        " 8 cache_miss StatisticDuration"
    ),
    "StatisticDuration": "1 count uint64, 2 ns uint64",
    "RepositoryIndexRequest": "1 repository_name string, 2 ready bool",
    "RepositoryIndexResponse": "1 models *RepositoryIndexResponse.ModelIndex",
    "RepositoryIndexResponse.ModelIndex": (
        "1 name string, 2 version string, 3 state string, 4 reason string"
    ),
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="argosy/open_inference.proto", package=_PACKAGE, syntax="proto3"
    )
    made: dict[str, Any] = {}
    for name, fields in _MESSAGES.items():
        outer, _, inner = name.rpartition(".")
        message = made[outer].nested_type.add() if outer else file.message_type.add()
        made[name] = message
        message.name = inner
        for line in filter(None, fields.split(",")):
            number, field, kind = line.split()
            _add_field(message, name, int(number), field, kind)
    return file


def _add_field(message: Any, owner: str, number: int, name: str, kind: str) -> None:
    repeated = kind[0] in "*%"
    field = message.field.add(
        name=name,
        number=number,
        label=_KINDS.LABEL_REPEATED if repeated else _KINDS.LABEL_OPTIONAL,
    )
    bare = kind.lstrip("*%|")
    if kind[0] == "%":
        entry = message.nested_type.add(name="".join(map(str.title, name.split("_"))) + "Entry")
        entry.options.map_entry = True
        _add_field(entry, "", 1, "key", "string")
        _add_field(entry, "", 2, "value", bare)
        bare = f"{owner}.{entry.name}"
    if kind[0] == "|":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if bare in _SCALARS:
        field.type = _SCALARS[bare]
    else:
        field.type, field.type_name = _KINDS.TYPE_MESSAGE, f".{_PACKAGE}.{bare}"


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_file().SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


MESSAGES = _classes()
"""The message classes by name."""
