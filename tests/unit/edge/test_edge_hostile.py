"""Hostile models that reached a device all the same: it does not serve them, and says why."""

from __future__ import annotations

import hashlib
import threading

import numpy as np
import pytest

from edge_client import opened
from edge_client.errors import LoadError
from edge_client.inference import load_model
from edge_client.settings import GIB, Home
from edge_client.slots import Slot
from edge_client.staging import TrialRun
from edge_client.store import Store
from schemas.errors import DeviceCause
from schemas.measure import Golden
from schemas.model import Manifest, Variant
from schemas.signature import Signature, TensorSpec
from tests.fakes.edge_models import golden_npz, model_file
from tests.fakes.hostile_onnx import GUARDED, RUNNING, plain

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, 4)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=(-1, 4)),),
)


def released(data: bytes, golden: bytes) -> Manifest:
    variant = Variant(
        id="fp32",
        precision="fp32",
        scheme="none",
        opset=20,
        file=model_file("model.onnx", data or b"?"),
        golden=Golden(file=model_file("golden.npz", golden), samples=1, tolerance=1e-3),
    )
    return Manifest(model="third", signature=SIGNATURE, variants=(variant,))


@pytest.mark.parametrize("case", GUARDED, ids=lambda case: case.name)
def test_a_hostile_file_is_not_opened(monkeypatch, case):
    seen = []
    monkeypatch.setattr(opened.ort, "InferenceSession", lambda *a, **_: seen.append(a))
    data = case.build()
    with pytest.raises(LoadError, match=case.says):
        load_model(data, released(data, b"none"), "fp32")
    assert not seen


@pytest.fixture
def home(tmp_path) -> Home:
    made = Home(tmp_path / "home")
    made.create()
    return made


def trial(home: Home, data: bytes, output: np.ndarray, seconds: float):
    """The verdict of the trial load, in its own process as the agent starts it."""
    golden = golden_npz(np.ones((1, 4), np.float32), output)
    manifest = released(data, golden)
    text = manifest.model_dump_json().encode()
    sha256 = hashlib.sha256(text).hexdigest()
    Store(home, quota=GIB).save_manifest(sha256, text)
    for blob in (data, golden):
        (home.blobs / hashlib.sha256(blob).hexdigest()).write_bytes(blob)
    slot = Slot(
        model="third",
        version=1,
        variant="fp32",
        sha256=manifest.variants[0].file.sha256,
        manifest_sha256=sha256,
    )
    verdicts, ended = [], threading.Event()

    def on_end(verdict):
        verdicts.append(verdict)
        ended.set()

    TrialRun(home, slot, size=len(data), seconds=seconds, on_end=on_end)
    assert ended.wait(120)
    return verdicts[0]


@pytest.mark.parametrize("case", RUNNING, ids=lambda case: case.name)
def test_what_only_running_shows_ends_in_the_trial_load(home, case):
    verdict = trial(home, case.build(), np.float32(0), seconds=10)
    assert verdict.cause in {DeviceCause.LOAD_FAILED, DeviceCause.GOLDEN_MISMATCH}
    assert verdict.detail


def test_a_hostile_file_is_refused_in_the_trial_load_too(home):
    case = next(case for case in GUARDED if case.name == "path traversal")
    verdict = trial(home, case.build(), np.float32(0), seconds=60)
    assert verdict.cause is DeviceCause.LOAD_FAILED
    assert "etc/passwd" in verdict.detail


def test_a_harmless_one_passes_it(home):
    product = np.ones((1, 4), np.float32)
    assert trial(home, plain(), product, seconds=60).cause is None
