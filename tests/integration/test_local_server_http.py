"""tritonclient's HTTP client, unchanged, against a device's local server."""

from __future__ import annotations

import http.client
import json
import socket
import threading

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from edge_client.batching import BatchSettings
from edge_client.inference import Loaded
from edge_client.server.limits import Limits
from tests.fakes.edge_models import linear_onnx, loaded, run_onnx, samples, slow_onnx
from tests.fakes.edge_serving import echo, scaled, serving, some

pytestmark = pytest.mark.integration

DTYPES = {
    "float32": "FP32",
    "float64": "FP64",
    "float16": "FP16",
    "uint8": "UINT8",
    "int8": "INT8",
    "int32": "INT32",
    "int64": "INT64",
    "bool": "BOOL",
}
LINEAR = linear_onnx()


def renamed(one: Loaded, name: str) -> Loaded:
    import dataclasses

    return dataclasses.replace(one, slot=dataclasses.replace(one.slot, model=name, sha256="3" * 64))


@pytest.fixture(scope="module")
def server():
    models = [echo(dtype, name=f"echo-{dtype}", version=3) for dtype in DTYPES]
    slow = renamed(loaded(slow_onnx(depth=8)), "slow")
    with serving(loaded(LINEAR, version=7), slow, *models) as (local, runtime):
        yield local, runtime


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(str(server[0].bound[0]), concurrency=8) as found:
        yield found


def tensor(name, array, datatype, *, binary=True):
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "7")
    assert not client.is_model_ready("digits", "6")
    assert not client.is_model_ready("nothing")
    about = client.get_server_metadata()
    assert about["name"] == "argosy"
    assert "binary_tensor_data" in about["extensions"]
    model = client.get_model_metadata("digits")
    assert model["versions"] == ["7"]
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert model["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}]
    names = {entry["name"]: entry for entry in client.get_model_repository_index()}
    assert names["digits"] == {"name": "digits", "version": "7", "state": "READY", "reason": ""}
    assert set(names) == {"digits", "slow", *(f"echo-{d}" for d in DTYPES)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_each_datatype_comes_back_as_it_went(client, dtype, binary_in, binary_out):
    if dtype == "float16" and not binary_in:
        return  # tritonclient sends FP16 in binary only
    x = some(dtype)
    outputs = [triton.InferRequestedOutput("y", binary_data=binary_out)]
    found = client.infer(
        f"echo-{dtype}",
        [tensor("x", x, DTYPES[dtype], binary=binary_in)],
        outputs=outputs,
        request_id="r1",
    )
    answer = found.get_response()
    assert answer["model_version"] == "3"
    assert answer["id"] == "r1"
    assert np.array_equal(found.as_numpy("y"), x)
    assert found.as_numpy("y").dtype == x.dtype


@pytest.mark.parametrize("request_coding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_coding", [None, "gzip", "deflate"])
def test_compression(client, request_coding, response_coding):
    x = samples(200)
    found = client.infer(
        "digits",
        [tensor("x", x, "FP32")],
        request_compression_algorithm=request_coding,
        response_compression_algorithm=response_coding,
    )
    assert np.allclose(found.as_numpy("probabilities"), run_onnx(LINEAR, x), atol=1e-6)


def test_many_at_once_and_the_figures(client, server):
    before = client.get_inference_statistics("digits")["model_stats"][0]
    x = samples(32)
    asked = [
        client.async_infer("digits", [tensor("x", x[i : i + 1], "FP32")], model_version="7")
        for i in range(32)
    ]
    found = np.concatenate([one.get_result().as_numpy("probabilities") for one in asked])
    assert np.allclose(found, run_onnx(LINEAR, x), atol=1e-6)
    after = client.get_inference_statistics("digits", "7")["model_stats"][0]
    assert after["version"] == "7"
    assert after["inference_count"] - before["inference_count"] == 32
    done = after["inference_stats"]["success"]
    assert done["count"] - before["inference_stats"]["success"]["count"] == 32
    assert done["ns"] > 0
    assert {one["name"] for one in client.get_inference_statistics()["model_stats"]} >= {"slow"}


def test_a_slow_model_goes_through_the_batcher(client):
    x = samples(24)
    asked = [client.async_infer("slow", [tensor("x", x[i : i + 1], "FP32")]) for i in range(24)]
    found = np.concatenate([one.get_result().as_numpy("probabilities") for one in asked])
    assert np.allclose(found, run_onnx(slow_onnx(depth=8), x), atol=1e-5)


def test_the_best_classes_as_text(client):
    x = samples(2)
    wanted = [triton.InferRequestedOutput("probabilities", class_count=2)]
    found = client.infer("digits", [tensor("x", x, "FP32")], outputs=wanted)
    texts = found.as_numpy("probabilities")
    assert texts.shape == (2, 2)
    value, index, label = texts[0, 0].decode().split(":")
    scores = run_onnx(LINEAR, x)[0]
    assert int(index) == scores.argmax()
    assert label == "abc"[int(index)]
    assert float(value) == pytest.approx(scores.max(), abs=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "nothing"}, "is not on this device"),
        ({"version": "6"}, "serves in version 7"),
        ({"name": "y"}, "'y'"),
        ({"dtype": "FP64"}, "float64"),
        ({"shape": (1, 5)}, "shape"),
        ({"nan": True}, "NaN"),
        ({"high": True}, "100"),
        ({"output": "other"}, "'other'"),
        ({"sequence": 9}, "sequences"),
        ({"timeout": 1}, "passed"),
    ],
)
def test_what_is_refused_says_why(client, server, change, words):
    x = samples(1) if "shape" not in change else np.ones(change["shape"], np.float32)
    if "nan" in change:
        x[0, 1] = np.nan
    if "high" in change:
        x[0, 1] = 1000
    if "dtype" in change:
        x = x.astype(np.float64)
    outputs = [triton.InferRequestedOutput(change["output"])] if "output" in change else None
    with pytest.raises(InferenceServerException, match=words):
        client.infer(
            change.get("model", "digits"),
            [tensor(change.get("name", "x"), x, change.get("dtype", "FP32"))],
            model_version=change.get("version", ""),
            outputs=outputs,
            sequence_id=change.get("sequence", 0),
            timeout=change.get("timeout"),
        )


def test_refusals_are_counted(client, server):
    runtime = server[1]
    before = runtime.counted["rejected", "digits"], runtime.counted["shed", "digits"]
    with pytest.raises(InferenceServerException):
        client.infer("digits", [tensor("x", np.ones((1, 5), np.float32), "FP32")])
    with pytest.raises(InferenceServerException):
        client.infer("digits", [tensor("x", samples(1), "FP32")], timeout=1)
    after = runtime.counted["rejected", "digits"], runtime.counted["shed", "digits"]
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)


def test_a_full_queue_is_503():
    slow = renamed(loaded(slow_onnx()), "slow")
    with serving(slow, batches=BatchSettings(max_requests=1)) as (local, runtime):
        runtime.hold = threading.Event()
        body = json.dumps(
            {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
        )
        lines = [http.client.HTTPConnection("127.0.0.1", local.bound[0].port) for _ in range(4)]
        for line in lines:
            line.request("POST", "/v2/models/slow/infer", body)
        refused = [line for line in lines if _status_within(line, 0.5) == 503]
        runtime.hold.set()
        statuses = [line.getresponse().status for line in lines if line not in refused]
        assert len(refused) >= 2
        assert set(statuses) == {200}
        for line in lines:
            line.close()


def _status_within(line, seconds):
    line.sock.settimeout(seconds)
    try:
        return line.getresponse().status
    except TimeoutError:
        return None
    finally:
        if line.sock is not None:
            line.sock.settimeout(20)


@pytest.mark.parametrize("inline_seconds", [1.0, 0.0])
def test_no_request_fails_or_is_mixed_while_models_are_swapped(inline_seconds):
    one, two = scaled(1.0, version=1), scaled(2.0, version=2)
    with serving(one, limits=Limits(inline_seconds=inline_seconds)) as (local, runtime):
        stop, wrong, versions = threading.Event(), [], set()

        def ask() -> None:
            x = np.ones((2, 3), np.float32)
            with triton.InferenceServerClient(str(local.bound[0])) as mine:
                while not stop.is_set():
                    found = mine.infer("scale", [tensor("x", x, "FP32")])
                    version = int(found.get_response()["model_version"])
                    versions.add(version)
                    if not np.array_equal(found.as_numpy("y"), x * version):
                        wrong.append(found.get_response())

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for i in range(200):
            runtime.swap("scale", (two, one)[i % 2])
            threading.Event().wait(0.005)
        stop.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert versions == {1, 2}


def test_a_unix_socket_serves_any_http_client(tmp_path):
    path = tmp_path / "infer.sock"
    with serving(loaded(LINEAR), addresses=(f"unix:{path}?mode=0660",)):
        assert path.stat().st_mode & 0o777 == 0o660
        line = http.client.HTTPConnection("localhost")
        line.sock = socket.socket(socket.AF_UNIX)
        line.sock.connect(str(path))
        x = samples(2)
        body = {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": x.tolist()}]}
        line.request("POST", "/v2/models/digits/versions/1/infer", json.dumps(body))
        answer = json.loads(line.getresponse().read())
        assert np.allclose(np.reshape(answer["outputs"][0]["data"], (2, 3)), run_onnx(LINEAR, x))
        line.close()
    assert not path.exists()
