from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_client.errors import GoldenError, InferenceError, InputError, LoadError, NoModelError
from edge_client.inference import load_model, refuse_unsafe
from edge_client.probe import check_golden, read_golden
from edge_client.runtime import Runtime
from edge_client.telemetry import Windows
from schemas.model import Manifest, Requires
from tests.fakes.edge_models import (
    golden_npz,
    linear_onnx,
    loaded,
    quantized_onnx,
    release,
    samples,
)


@pytest.fixture(scope="module")
def model():
    return loaded(linear_onnx()).model


def test_a_batch_gives_classes_with_probabilities(model):
    prediction = model.predict(samples(5))
    scores = prediction.outputs["probabilities"]
    assert scores.shape == (5, 3)
    np.testing.assert_array_equal(prediction.classes, scores.argmax(axis=1))
    np.testing.assert_allclose(prediction.confidence, scores.max(axis=1), rtol=1e-6)
    assert prediction.label(0) == "abc"[int(scores[0].argmax())]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (samples(2).astype(np.float64), "'x' must be float32, not float64"),
        (samples(2)[:, :3], r"'x' must have shape \[-1, 4\], not \[2, 3\]"),
        (samples(2)[0], r"not \[4\]"),
        (np.zeros((0, 4), np.float32), r"not \[0, 4\]"),
        (np.full((1, 4), np.nan, np.float32), "NaN"),
        (np.full((1, 4), 101, np.float32), r"must lie in -100.0..100.0, not 101.0"),
        ({"y": samples(1)}, "no input 'y'"),
        ({}, "'x' is missing"),
    ],
)
def test_an_input_that_does_not_fit_is_explained(model, value, says):
    with pytest.raises(InputError, match=says):
        model.predict(value)


def test_an_output_that_is_no_number_is_a_failure():
    model = loaded(linear_onnx(log_input=True)).model
    with pytest.raises(InferenceError, match="NaN"):
        model.predict(-samples(1))


def test_a_provider_that_is_not_there_is_said():
    with pytest.raises(LoadError, match="needs one of NoSuchProvider"):
        loaded(linear_onnx(), requires=Requires(providers=("NoSuchProvider",)))


def test_a_file_that_is_not_what_the_signature_says_is_refused():
    data = linear_onnx()
    manifest = Manifest.model_validate_json(release(data).manifest)
    spec = manifest.signature.inputs[0].model_copy(update={"dtype": "uint8"})
    signature = manifest.signature.model_copy(update={"inputs": (spec,)})
    with pytest.raises(LoadError, match="uint8"):
        load_model(data, manifest.model_copy(update={"signature": signature}), "fp32")


@pytest.mark.parametrize("where", ["initializer", "subgraph"])
def test_tensors_in_other_files_are_refused(tmp_path, where):
    plain = onnx.load_from_string(linear_onnx())
    tensor = plain.graph.initializer[0]
    outside = onnx.TensorProto()
    outside.CopyFrom(tensor)
    outside.ClearField("raw_data")
    outside.data_location = onnx.TensorProto.EXTERNAL
    entry = outside.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    if where == "initializer":
        plain.graph.initializer[0].CopyFrom(outside)
    else:
        attribute = plain.graph.node[0].attribute.add()
        attribute.name, attribute.type = "body", onnx.AttributeProto.GRAPH
        attribute.g.initializer.append(outside)
    with pytest.raises(LoadError, match="other files"):
        refuse_unsafe(plain.SerializeToString())


def test_a_file_onnx_itself_wrote_with_external_data_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save_model(
        onnx.load_from_string(linear_onnx()), path, save_as_external_data=True, size_threshold=0
    )
    with pytest.raises(LoadError, match="other files"):
        refuse_unsafe(path.read_bytes())


@pytest.mark.parametrize("data", [b"\x00\xff", b"\x3a\xff\xff\xff\xff\x0f", b"\xff" * 40])
def test_bytes_that_are_no_protobuf_are_refused(data):
    with pytest.raises(LoadError):
        refuse_unsafe(data)


def test_golden_vectors_decide():
    version = release(linear_onnx())
    golden = Manifest.model_validate_json(version.manifest).variants[0].golden
    model = loaded(linear_onnx()).model
    arrays = read_golden(version.files[golden.file.sha256])
    check_golden(model, golden, arrays)
    with pytest.raises(GoldenError, match="off by"):
        check_golden(loaded(linear_onnx(5)).model, golden, arrays)
    with pytest.raises(GoldenError, match="lacks out_0"):
        check_golden(model, golden, {"in_0": arrays["in_0"]})
    with pytest.raises(GoldenError, match="shape"):
        check_golden(model, golden, arrays | {"out_0": arrays["out_0"][:2]})
    off = arrays["out_0"].copy()
    off[0, 0] = np.nan
    with pytest.raises(GoldenError):
        check_golden(model, golden, arrays | {"out_0": off})


def test_a_golden_archive_with_pickles_or_garbage_is_refused(monkeypatch):
    file = io.BytesIO()
    np.savez(file, in_0=np.array([Path()], dtype=object), out_0=np.zeros(1))
    for data in (file.getvalue(), b"garbage", b""):
        with pytest.raises(GoldenError):
            read_golden(data)
    monkeypatch.setattr("edge_client.probe.MAX_GOLDEN_BYTES", 10)
    with pytest.raises(GoldenError, match="too large"):
        read_golden(golden_npz(samples(), samples()))


def test_no_request_fails_while_models_are_swapped():
    runtime = Runtime(Windows())
    with pytest.raises(NoModelError):
        runtime.predict(samples(1))
    first, second = loaded(linear_onnx(1), 1), loaded(quantized_onnx(1), 2)
    runtime.swap("digits", first)
    failures, done, stop = [], [0], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                runtime.predict(samples(1))
                done[0] += 1
            except Exception as error:  # noqa: BLE001 - any failure is one
                failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(200):
        runtime.swap("digits", second if i % 2 else first)
        runtime.predict(samples(1))
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert done[0] > 0


def test_the_counts_of_a_probation_are_of_the_swapped_in_model():
    runtime = Runtime(Windows())
    model = loaded(linear_onnx(log_input=True))
    runtime.swap("digits", model)
    runtime.predict(samples(3))
    with pytest.raises(InferenceError):
        runtime.predict(-samples(1))
    with pytest.raises(InputError):
        runtime.predict(samples(1).astype(int))
    assert runtime.counts(model.slot) == (4, 1)
    runtime.swap("digits", model)
    assert runtime.counts(model.slot) == (0, 0)
