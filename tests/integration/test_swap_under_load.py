"""A real update under 200 requests a second, by the local server and by a program: none is lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import tritonclient.http as triton

from edge_client import Edge
from schemas.rollout import ExecState, Probation
from tests.fakes.edge_models import linear_onnx, release, run_onnx, samples
from tests.fakes.edge_traffic import install
from tests.fakes.edge_trust import assignment
from tests.fakes.gateway import Device, enrolled_home, mosquitto_path, until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(mosquitto_path() is None, reason="mosquitto is not installed"),
]

X = samples(64)
NETS = {1: linear_onnx(1), 2: linear_onnx(2)}
RIGHT = {number: run_onnx(net, X) for number, net in NETS.items()}
APART = np.abs(RIGHT[1] - RIGHT[2]).max(axis=1).min()

RATE, THREADS = 100.0, 2
"""Of each of the two ways."""


@dataclass
class Load:
    """Asks at a fixed rate. ask: a row's index → the version that says it answered, its scores."""

    ask: Callable[[], Callable[[int], tuple[int, np.ndarray]]]
    stop: threading.Event = field(default_factory=threading.Event)
    answers: list[list[int]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def start(self) -> list[threading.Thread]:
        self.answers = [[] for _ in range(THREADS)]
        threads = [threading.Thread(target=self._run, args=(kept,)) for kept in self.answers]
        for thread in threads:
            thread.start()
        return threads

    def _run(self, kept: list[int]) -> None:
        ask, due, row = self.ask(), time.monotonic(), 0
        while not self.stop.is_set():
            self.stop.wait(max(0.0, due - time.monotonic()))
            due, row = due + THREADS / RATE, (row + 1) % len(X)
            try:
                version, scores = ask(row)
            except Exception as error:  # noqa: BLE001 - whatever it is, a request failed
                self.wrong.append(repr(error))
                continue
            kept.append(version)
            if not np.allclose(scores, RIGHT[version][row], atol=1e-5):
                self.wrong.append(f"version {version} did not give {scores} for row {row}")


@pytest.fixture
def device(broker, signer, tmp_path, free_port) -> Iterator[tuple[Device, str]]:
    home, name = enrolled_home(tmp_path / "home", broker.ca, signer, broker.port)
    install(home, release(NETS[1]))
    address = f"127.0.0.1:{free_port}"
    device = Device(home, name, ("--no-bench", "--window", "1", "--serve", address))
    device.start()
    yield device, address
    device.kill()


def ready(client: triton.InferenceServerClient) -> bool:
    try:
        return client.is_model_ready("digits")
    except OSError:
        return False


def test_a_swap_under_load_loses_and_mixes_nothing(gateway, device):
    assert APART > 1e-3  # any row tells which version answered
    agent, address = device

    def over_http():
        client = triton.InferenceServerClient(address)

        def ask(row: int) -> tuple[int, np.ndarray]:
            tensor = triton.InferInput("x", [1, X.shape[1]], "FP32")
            tensor.set_data_from_numpy(X[row : row + 1])
            answer = client.infer("digits", [tensor])
            version = int(answer.get_response()["model_version"])
            return version, answer.as_numpy("probabilities")[0]

        return ask

    with triton.InferenceServerClient(address) as client, Edge(agent.home.root).model() as model:
        until(lambda: ready(client), "the local server")

        def in_a_program():
            def ask(row: int) -> tuple[int, np.ndarray]:
                answer = model.predict(X[row : row + 1])
                return answer.slot.version, answer.outputs["probabilities"][0]

            return ask

        loads = [Load(over_http), Load(in_a_program)]
        threads = [thread for load in loads for thread in load.start()]
        version = release(NETS[2])
        gateway.add(version, 2)
        wanted = assignment(
            agent.id, version.manifest, version=2, probation=Probation(min_inferences=200)
        )
        gateway.offer(
            agent.id, gateway.signer.desired(wanted, sequence=1, length=len(version.manifest))
        )
        try:
            gateway.wait(wanted.execution, ExecState.SUCCEEDED, 30)
            for load in loads:
                until(lambda load=load: all(a[-1:] == [2] for a in load.answers), "both to swap")
        finally:
            for load in loads:
                load.stop.set()
            for thread in threads:
                thread.join(20)
    for load in loads:
        assert load.wrong == []
        for answers in load.answers:
            assert answers == sorted(answers)  # never back
            assert set(Counter(answers)) == {1, 2}
