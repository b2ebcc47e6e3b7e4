"""The whole platform and a real agent: an update costs what is new in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge_client.enroll_command import Options, enroll_device
from edge_client.settings import Home
from schemas.enroll import TokenRequest
from schemas.rollout import ExecState
from tests.chaos.stand import QUIET_VOICE, Stand
from tests.fakes.edge_models import linear_onnx, samples
from tests.fakes.gateway import Device, until

pytestmark = pytest.mark.integration

SIZE = 3 * 2**20


@pytest.fixture
def stand(tmp_path):
    made = Stand(tmp_path)
    made.settings = replace(made.settings, https_links=False)
    made.open()
    yield made
    made.close()


@pytest.fixture
def device(stand, tmp_path):
    source = tmp_path / "source.npz"
    np.savez(source, x=samples(60))
    token = stand.argosy.tokens.create(TokenRequest(tags=("all",))).token
    home = Home(tmp_path / "device")
    asked = Options(token=token, server=stand.settings.url, wait=60)
    enrolled = enroll_device(home, asked, QUIET_VOICE)
    options = ("--no-bench", "--source", str(source), "--rate", "40", "--window", "1")
    made = Device(home, enrolled.record.device, options)
    made.start()
    until(lambda: stand.device(made.id).presence == "ONLINE", "the device")
    yield made
    made.kill()


def tuned(first: bytes, *, doc: str = "") -> bytes:
    """A model after another, with other weights in its net, and a longer header if wanted."""
    model = onnx.load_from_string(first)
    rng = np.random.default_rng(1)
    for at, tensor in enumerate(model.graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            values = values + rng.normal(size=values.shape).astype(np.float32) / 10
        model.graph.initializer[at].CopyFrom(numpy_helper.from_array(values, tensor.name))
    model.producer_name = doc
    return model.SerializeToString()


def delivered(stand: Stand, device: Device, model: bytes) -> int:
    """Roll a version out; the bytes that came over the network."""
    rollout = stand.roll_out(stand.register(model), "all")
    until(
        lambda: stand.execution(rollout, device.id).state is ExecState.SUCCEEDED,
        "the device to serve it",
    )
    return stand.execution(rollout, device.id).bytes_fetched


def test_an_update_costs_what_is_new_in_it(stand, device):
    first = linear_onnx(padding=SIZE)
    assert delivered(stand, device, first) >= SIZE

    # The same places: what is new lies in a chunk or two, and the others are at hand.
    second = tuned(first)
    assert 0 < delivered(stand, device, second) < SIZE / 10

    # All else has moved by some bytes, and no chunk is as before: a patch.
    third = tuned(second, doc="tuned once more, by somebody whose name is longer")
    assert 0 < delivered(stand, device, third) < SIZE / 100
    assert "a patch of" in device.log()
