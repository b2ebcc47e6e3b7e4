"""What the device relies on in ONNX Runtime: one suite over the real one and the fake."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from edge_client import opened
from edge_client.errors import InferenceError, LoadError
from edge_client.inference import load_model
from edge_client.sessions import SessionSettings
from schemas.model import Manifest
from tests.fakes.edge_models import linear_onnx, quantized_onnx, release, samples
from tests.fakes.ort import CPU, FakeOrt

SETTINGS = [
    SessionSettings(),
    SessionSettings(threads=2),
    SessionSettings(threads=2, spinning=True),
    SessionSettings(arena=False),
    SessionSettings(provider="cpu"),
]


@pytest.fixture(params=["real", "fake"])
def ort(request, monkeypatch):
    found = onnxruntime if request.param == "real" else FakeOrt(nodes=2)
    monkeypatch.setattr(opened, "ort", found)
    return found


def load(data: bytes, **more):
    manifest = Manifest.model_validate_json(release(data).manifest)
    return load_model(data, manifest, "fp32", **more)


@pytest.mark.parametrize("settings", SETTINGS, ids=repr)
@pytest.mark.parametrize("data", [linear_onnx(), quantized_onnx()], ids=["fp32", "int8"])
def test_every_setting_gives_the_same_answer(ort, settings, data):
    x = samples(7)
    expected = onnxruntime.InferenceSession(data, providers=[CPU]).run(None, {"x": x})[0]
    found = load(data, settings=settings).predict(x)
    np.testing.assert_allclose(found.outputs["probabilities"], expected, rtol=1e-5)


def test_cpu_alone_has_no_share_to_tell(ort):
    model = load(linear_onnx())
    assert (model.provider, model.wanted, model.nodes) == (CPU, "", {})


def test_nodes_are_counted_when_they_are_asked_for_and_nothing_is_left(ort, tmp_path):
    model = load(linear_onnx(), profile_in=tmp_path)
    assert model.nodes == {CPU: 2}
    assert not list(tmp_path.iterdir())


def test_a_provider_that_is_not_there_is_an_error_or_said(ort):
    with pytest.raises(LoadError, match="CUDAExecutionProvider was asked for"):
        load(linear_onnx(), settings=SessionSettings(provider="cuda"))
    model = load(linear_onnx(), settings=SessionSettings(provider="cuda", fallback=True))
    assert (model.provider, model.wanted) == (CPU, "CUDAExecutionProvider")


def test_a_run_that_fails_is_said_on_one_line(ort):
    model = load(linear_onnx())
    with pytest.raises(InferenceError, match="the model failed") as found:
        model.run({"x": np.zeros((1, 5), np.float32)})
    assert "\n" not in found.value.args[0]


def test_a_model_is_warmed_up_by_its_golden_inputs_or_by_zeros(ort):
    model = load(linear_onnx())
    seen = []
    run = model._run
    model._run = lambda names, feed: (seen.append(feed["x"]), run(names, feed))[1]
    model.warm_up({"x": samples(8)})
    model.warm_up(runs=1)
    np.testing.assert_array_equal(seen[0], samples(8)[:1])
    assert len(seen) == 3
    assert not seen[2].any()
    bad = load(linear_onnx(log_input=True))
    bad.warm_up()  # zeros give no number here, which says nothing about the model
    with pytest.raises(InferenceError, match="NaN"):
        bad.warm_up({"x": -samples(1)})
