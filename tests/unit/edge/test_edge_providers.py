from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from edge_client import opened
from edge_client.busy import Busy
from edge_client.errors import LoadError
from edge_client.inference import load_model
from edge_client.loading import load_first
from edge_client.own_runtime import find_slot
from edge_client.providers import Choice, choose, named
from edge_client.sessions import SessionSettings
from edge_client.store import Store
from schemas.model import Manifest, Requires
from tests.fakes.edge_installed import install
from tests.fakes.edge_models import linear_onnx, release, samples
from tests.fakes.ort import CPU, FakeOrt

CUDA, TRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
ONNX = linear_onnx()


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch) -> Path:
    """Whatever is left behind here was forgotten."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def load(monkeypatch, ort: FakeOrt, *, requires=(CPU,), **settings):
    monkeypatch.setattr(opened, "ort", ort)
    version = release(ONNX, requires=Requires(providers=requires))
    manifest = Manifest.model_validate_json(version.manifest)
    return load_model(ONNX, manifest, "fp32", settings=SessionSettings(**settings))


class TestNames:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("cpu", (CPU, {})),
            ("CUDA", (CUDA, {})),
            ("cuda:1", (CUDA, {"device_id": "1"})),
            ("tensorrt:0", (TRT, {"device_id": "0"})),
            ("openvino:NPU", (OPENVINO, {"device_type": "NPU"})),
            ("openvino:AUTO:GPU,CPU", (OPENVINO, {"device_type": "AUTO:GPU,CPU"})),
            ("xnnpack", ("XnnpackExecutionProvider", {})),
            ("qnn", ("QNNExecutionProvider", {})),
            ("migraphx", ("MIGraphXExecutionProvider", {})),
            ("NewExecutionProvider", ("NewExecutionProvider", {})),
        ],
    )
    def test_short_and_full_names_are_read(self, text, found):
        assert named(text, ("XnnpackExecutionProvider",)) == found

    def test_a_detail_that_means_nothing_is_refused(self):
        with pytest.raises(LoadError, match="'fast' means to CPU"):
            named("cpu:fast")


class TestChoice:
    def test_the_variant_s_first_that_is_there_serves_unless_another_is_asked_for(self):
        has = (CUDA, CPU)
        assert choose(SessionSettings(), (OPENVINO, CUDA, CPU), has).provider == CUDA
        assert choose(SessionSettings(provider="cpu"), (CUDA,), has).chain == ((CPU, {}),)
        assert choose(SessionSettings(), (), has).provider == CPU

    def test_what_a_provider_leaves_goes_to_the_next_one(self):
        settings = SessionSettings(provider="tensorrt", provider_options={"trt_fp16_enable": "1"})
        chain = choose(settings, (CPU,), (TRT, CUDA, CPU)).chain
        assert chain == ((TRT, {"trt_fp16_enable": "1"}), (CUDA, {}), (CPU, {}))

    def test_what_is_not_there_is_an_error_that_says_what_is_and_what_brings_it(self):
        with pytest.raises(LoadError, match=f"{CUDA} was asked for; this device has {CPU}") as it:
            choose(SessionSettings(provider="cuda"), (CPU,), (CPU,))
        assert "onnxruntime-gpu" in it.value.hint
        with pytest.raises(LoadError, match=f"needs one of {OPENVINO}") as it:
            choose(SessionSettings(), (OPENVINO,), (CPU,))
        assert "onnxruntime-openvino" in it.value.hint

    def test_cpu_takes_its_place_only_where_that_is_allowed_and_says_so(self):
        settings = SessionSettings(provider="cuda", fallback=True)
        assert choose(settings, (CPU,), (CPU,)) == Choice(CPU, CUDA, ((CPU, {}),))
        settings = SessionSettings(fallback=True)
        assert choose(settings, (OPENVINO,), (CPU,)).wanted == OPENVINO


class TestLoading:
    def test_nodes_are_counted_where_several_providers_share_the_graph(self, monkeypatch):
        ort = FakeOrt(has=(TRT, CUDA, CPU), takes={TRT: 3, CUDA: 1})
        model = load(monkeypatch, ort, provider="tensorrt:1")
        assert (model.provider, model.wanted) == (TRT, "")
        assert model.nodes == {TRT: 3, CUDA: 1, CPU: 1}
        assert ort.asked == [[(TRT, {"device_id": "1"}), (CUDA, {}), (CPU, {})]]
        assert ort.fallback_off == 1
        assert model.predict(samples(2)).n == 2

    @pytest.mark.parametrize("how", ["dead", "raises"])
    def test_a_provider_that_does_not_start_is_an_error(self, monkeypatch, temporary, how):
        ort = FakeOrt(has=(CUDA, CPU), **{how: (CUDA,)})
        with pytest.raises(LoadError, match=CUDA) as it:
            load(monkeypatch, ort, provider="cuda")
        assert "\n" not in it.value.args[0]
        assert not list(temporary.iterdir())

    @pytest.mark.parametrize("how", ["dead", "raises"])
    def test_or_cpu_and_then_said(self, monkeypatch, temporary, how):
        ort = FakeOrt(has=(CUDA, CPU), **{how: (CUDA,)})
        model = load(monkeypatch, ort, provider="cuda", fallback=True)
        assert (model.provider, model.wanted, model.nodes) == (CPU, CUDA, {})
        assert model.predict(samples(1)).n == 1
        assert not list(temporary.iterdir())

    def test_a_provider_that_takes_no_node_is_cpu_in_truth(self, monkeypatch, temporary):
        ort = FakeOrt(has=(OPENVINO, CPU), takes={OPENVINO: 0})
        with pytest.raises(LoadError, match="runs no node"):
            load(monkeypatch, ort, provider="openvino:GPU")
        model = load(monkeypatch, ort, provider="openvino:GPU", fallback=True)
        assert (model.provider, model.wanted) == (CPU, OPENVINO)
        assert not list(temporary.iterdir())


def test_threads_that_cannot_be_meant_are_refused():
    for threads in (0, -1, 257):
        with pytest.raises(ValueError, match="threads must be"):
            SessionSettings(threads=threads)


def test_what_the_agent_says_of_a_model_that_it_cannot_load_names_the_package(tmp_path) -> None:
    home = install(tmp_path / "home", release(ONNX))
    slot = find_slot(home, None)
    session = SessionSettings(provider="cuda")
    loaded, (problem,) = load_first(Store(home, quota=2**30), slot, busy=Busy(), session=session)
    assert loaded is None
    assert str(problem).startswith(f"digits v1: {CUDA} was asked for; this device has ")
    assert "onnxruntime-gpu" in str(problem)
