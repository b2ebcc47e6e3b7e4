"""Encoded images in, findings out: what the manifest says is done when a request asks for it."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
import tritonclient.http as triton
from onnx import TensorProto, helper
from PIL import Image
from tritonclient.utils import InferenceServerException

from schemas.ops import Decode, Resize, TopK
from schemas.signature import Signature, TensorSpec
from tests.fakes.edge_models import linear_onnx, loaded
from tests.fakes.edge_serving import packaged, serving

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def address():
    """uint8 [n, 2, 2, 3] → the mean of each channel, as scores over three classes."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["f", "axes"], ["m"], keepdims=0),
            helper.make_node("Div", ["m", "k"], ["y"]),
        ],
        "colours",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 2, 2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("k", TensorProto.FLOAT, [1], [255.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    colours = packaged(
        model.SerializeToString(),
        Signature(
            inputs=(TensorSpec(name="x", dtype="uint8", shape=(-1, 2, 2, 3)),),
            outputs=(TensorSpec(name="y", dtype="float32", shape=(-1, 3)),),
        ),
        name="colours",
        labels=("red", "green", "blue"),
        preprocess=(Decode(), Resize(height=2, width=2)),
        postprocess=(TopK(k=2),),
    )
    with serving(colours, loaded(linear_onnx())) as (local, _):
        yield str(local.bound[0])


def picture(colour: str, size: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(file, "PNG")
    return file.getvalue()


def asked(*files: bytes) -> triton.InferInput:
    made = triton.InferInput("x", [len(files)], "BYTES")
    made.set_data_from_numpy(np.array(files, dtype=object))
    return made


def test_pictures_are_decoded_and_findings_come_as_records(address):
    with triton.InferenceServerClient(address) as client:
        found = client.infer(
            "colours",
            [asked(picture("red", 10), picture("blue", 31))],
            parameters={"postprocess": True},
        )
        assert np.allclose(found.as_numpy("y"), [[1, 0, 0], [0, 0, 1]])
        records = [json.loads(text) for text in found.as_numpy("records")]
    assert [record["label"] for record in records] == ["red", "blue"]
    assert all(len(record["top"]) == 2 for record in records)


def test_base64_in_json_and_pixels(address):
    import http.client

    text = base64.b64encode(picture("lime", 5)).decode()
    tensor = {"name": "x", "shape": [1], "datatype": "BYTES", "data": [text]}
    encoded = {"inputs": [{**tensor, "parameters": {"content_type": "base64"}}]}
    pixels = np.zeros((1, 4, 4, 3), np.uint8)
    pixels[..., 1] = 255
    camera = {
        "inputs": [
            {"name": "x", "shape": [1, 4, 4, 3], "datatype": "UINT8", "data": pixels.tolist()}
        ],
        "parameters": {"preprocess": True},
    }
    line = http.client.HTTPConnection(address)
    for body in (encoded, camera):
        line.request("POST", "/v2/models/colours/infer", json.dumps(body))
        answer = json.loads(line.getresponse().read())
        assert answer["outputs"][0]["data"] == [0, 1, 0], answer
    line.close()


@pytest.mark.parametrize(
    ("model", "data", "words"),
    [
        ("colours", b"no picture", "sample 0"),
        ("digits", b"bytes", "decodes nothing"),
    ],
)
def test_what_is_no_picture_is_refused(address, model, data, words):
    with (
        triton.InferenceServerClient(address) as client,
        pytest.raises(InferenceServerException, match=words),
    ):
        client.infer(model, [asked(data)])
