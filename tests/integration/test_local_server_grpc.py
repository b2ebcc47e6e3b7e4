"""tritonclient's gRPC client, unchanged, against a device's local server."""

from __future__ import annotations

import queue

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from edge_client.errors import ServeError
from edge_client.server.addresses import parse_address
from edge_client.server.grpc_messages import MESSAGES
from edge_client.server.limits import Limits
from tests.fakes.edge_models import linear_onnx, loaded, run_onnx, samples, slow_onnx
from tests.fakes.edge_serving import echo, scaled, serving, some
from tests.integration.test_local_server_http import DTYPES, renamed

pytestmark = pytest.mark.integration

LINEAR = linear_onnx()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("grpc") / "infer.sock"
    models = [echo(dtype, name=f"echo-{dtype}", version=3) for dtype in DTYPES]
    slow = renamed(loaded(slow_onnx(depth=8)), "slow")
    with serving(
        loaded(LINEAR, version=7),
        slow,
        *models,
        addresses=(),
        grpc=("127.0.0.1:0", f"unix:{path}"),
        limits=Limits(body=1024 * 1024),
    ) as (local, _):
        yield str(local.grpc_bound[0]), str(local.grpc_bound[1])


@pytest.fixture(scope="module")
def client(address):
    with triton.InferenceServerClient(address[0]) as found:
        yield found


def tensor(array, datatype="FP32", name="x"):
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits", "7")
    assert not client.is_model_ready("digits", "6")
    about = client.get_server_metadata()
    assert about.name == "argosy"
    assert "statistics" in about.extensions
    model = client.get_model_metadata("digits")
    assert (model.versions, model.platform) == (["7"], "onnxruntime_onnx")
    assert [(t.name, t.datatype, t.shape) for t in model.inputs] == [("x", "FP32", [-1, 4])]
    index = client.get_model_repository_index()
    assert {(m.name, m.state) for m in index.models} >= {("digits", "READY"), ("slow", "READY")}


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_datatype_comes_back_as_it_went(client, dtype):
    x = some(dtype)
    outputs = [triton.InferRequestedOutput("y")]
    found = client.infer(
        f"echo-{dtype}", [tensor(x, DTYPES[dtype])], outputs=outputs, request_id="r1"
    )
    assert np.array_equal(found.as_numpy("y"), x)
    assert (found.get_response().id, found.get_response().model_version) == ("r1", "3")


@pytest.mark.parametrize(
    ("dtype", "field"),
    [
        ("float32", "fp32_contents"),
        ("float64", "fp64_contents"),
        ("uint8", "uint_contents"),
        ("int8", "int_contents"),
        ("int64", "int64_contents"),
        ("bool", "bool_contents"),
    ],
)
def test_typed_contents(address, dtype, field):
    import grpc

    x = some(dtype, 2)
    request = service_pb2.ModelInferRequest(model_name=f"echo-{dtype}")
    line = request.inputs.add(name="x", datatype=DTYPES[dtype], shape=[2, 3])
    getattr(line.contents, field).extend(x.ravel().tolist())
    with grpc.insecure_channel(address[0]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(request, timeout=10)
    assert np.array_equal(np.frombuffer(answer.raw_output_contents[0], dtype), x.ravel())


def test_many_at_once_fast_and_slow_and_the_figures(client):
    x = samples(24)
    answers: queue.Queue = queue.Queue()
    for model in ("digits", "slow"):
        for i in range(24):
            client.async_infer(
                model,
                [tensor(x[i : i + 1])],
                callback=lambda result, error: answers.put((result, error)),
                request_id=f"{model} {i}",
            )
    found = {}
    for _ in range(48):
        result, error = answers.get(timeout=20)
        assert error is None
        found[result.get_response().id] = result.as_numpy("probabilities")
    for model, expected in (
        ("digits", run_onnx(LINEAR, x)),
        ("slow", run_onnx(slow_onnx(depth=8), x)),
    ):
        rows = np.concatenate([found[f"{model} {i}"] for i in range(24)])
        assert np.allclose(rows, expected, atol=1e-5)
    figures = client.get_inference_statistics("slow").model_stats[0]
    assert figures.inference_count >= 24
    assert figures.inference_stats.success.count >= 24
    assert figures.inference_stats.compute_infer.ns > 0


def test_a_unix_socket(address):
    path = parse_address(address[1]).path
    with triton.InferenceServerClient(f"unix://{path}") as mine:
        found = mine.infer("digits", [tensor(samples(2))])
    assert found.as_numpy("probabilities").shape == (2, 3)


@pytest.mark.parametrize(
    ("model", "more", "status", "words"),
    [
        ("nothing", {}, "NOT_FOUND", "is not on this device"),
        ("digits", {"model_version": "6"}, "NOT_FOUND", "serves in version 7"),
        ("digits", {"sequence_id": 4}, "UNIMPLEMENTED", "sequences"),
        ("digits", {"timeout": 1}, "UNAVAILABLE", "passed"),
        ("echo-float32", {}, "INVALID_ARGUMENT", "shape"),
    ],
)
def test_what_is_refused_says_why(client, model, more, status, words):
    with pytest.raises(InferenceServerException, match=words) as raised:
        client.infer(model, [tensor(samples(1))], **more)
    assert raised.value.status() == f"StatusCode.{status}"


def test_a_request_that_is_too_large_is_refused(client):
    x = np.ones((100_000, 4), np.float32)
    with pytest.raises(InferenceServerException) as raised:
        client.infer("digits", [tensor(x)])
    assert raised.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


def test_the_address_must_be_free(address):
    for taken, words in zip(address, ("cannot listen", "another server"), strict=True):
        again = serving(scaled(1, version=1), addresses=(), grpc=(taken,))
        with pytest.raises(ServeError, match=words), again:
            pass


def test_the_messages_are_those_of_the_protocol():
    pool = service_pb2.DESCRIPTOR.pool

    def fields(descriptor):
        return {f.name: (f.number, f.type, f.is_repeated) for f in descriptor.fields}

    for name, message in MESSAGES.items():
        theirs = fields(pool.FindMessageTypeByName(f"inference.{name}"))
        ours = fields(message.DESCRIPTOR)
        assert ours.items() <= theirs.items(), name
