"""The whole platform and real agents: a rollout to all of them is broadcast."""

from __future__ import annotations

from dataclasses import replace

import httpx
import numpy as np
import pytest

from edge_client.enroll_command import Options, enroll_device
from edge_client.settings import Home
from schemas.enroll import TokenRequest
from schemas.rollout import ExecState
from tests.chaos.stand import QUIET_VOICE, Stand
from tests.fakes.edge_models import linear_onnx, samples
from tests.fakes.gateway import Device, until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SIZE = 6 * 2**20
COUNT = 3


@pytest.fixture
def stand(tmp_path):
    made = Stand(tmp_path)
    # Slow enough for the last to ask while the first still pulls.
    made.settings = replace(
        made.settings, broadcast_from=COUNT, broadcast_rate=4 * 2**20, transfer_rate=12 * 2**20
    )
    made.open()
    yield made
    made.close()


def test_agents_that_wait_for_one_model_get_it_once(stand, tmp_path):
    source = tmp_path / "source.npz"
    np.savez(source, x=samples(60))
    options = ("--no-bench", "--source", str(source), "--rate", "40", "--window", "1")
    token = stand.argosy.tokens.create(TokenRequest(tags=("all",), max_uses=COUNT)).token
    devices = []
    for number in range(COUNT):
        home = Home(tmp_path / f"device{number}")
        enrolled = enroll_device(
            home, Options(token=token, server=stand.settings.url, wait=60), QUIET_VOICE
        )
        devices.append(Device(home, enrolled.record.device, options))
    try:
        for device in devices:
            device.start()
        online = lambda: all(stand.device(one.id).presence == "ONLINE" for one in devices)  # noqa: E731
        until(online, "the devices")
        rollout = stand.roll_out(stand.register(linear_onnx(padding=SIZE)), "all")
        until(
            lambda: all(
                stand.execution(rollout, one.id).state == ExecState.SUCCEEDED for one in devices
            ),
            "every device to serve it",
        )
    finally:
        for device in devices:
            device.kill()
    heard = [device for device in devices if "listening to a broadcast" in device.log()]
    assert len(heard) == COUNT
    credentials = stand.home.credentials()
    headers = {"authorization": f"Bearer {credentials.token}"}
    shown = httpx.get(f"{credentials.url}/v1/transfers", headers=headers).json()["items"]
    assert sum(one["broadcast_bytes"] for one in shown) >= SIZE
