"""An agent before a broker of its own, measured from outside, and bare scripts beside it."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks._harness import ROOT
from tests.fakes.edge_models import linear_onnx, release
from tests.fakes.edge_traffic import install
from tests.fakes.edge_trust import Signer
from tests.fakes.gateway import Broker, Ca, Device, Gateway, enrolled_home

BARE = """
import json, ssl, sys, time
import numpy as np
import onnxruntime as ort
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

folder, model, port, device = sys.argv[1:]
session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
session.run(None, {"x": np.ones((1, 4), np.float32)})
client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=device, protocol=mqtt.MQTTv5)
client.tls_set(f"{folder}/ca.pem", f"{folder}/certificate.pem", f"{folder}/key.pem")
client.on_connect = lambda *_: print("connected", flush=True)
client.connect("127.0.0.1", int(port), keepalive=20)
client.loop_start()
while True:
    time.sleep(3600)
"""
"""Everything that a device needs without Argosy: a net, numpy, TLS and MQTT."""

BARE_ANSWER = """
import sys
import numpy as np
import onnxruntime as ort
session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, {"x": np.ones((1, 4), np.float32)})
"""

OUR_ANSWER = """
import os, sys
import numpy as np
from edge_client import Edge
Edge(sys.argv[1]).model("digits").predict(np.ones((1, 4), np.float32))
os._exit(0)
"""


class Relay:
    """Passes TCP on to a port, and counts the bytes both ways."""

    def __init__(self, port: int) -> None:
        self.up = self.down = 0
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(near,), daemon=True).start()

    def _pass(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self._to)) as far:
            while True:
                for ready in select.select([near, far], [], [])[0]:
                    try:
                        data = ready.recv(65536)
                        if not data:
                            return
                        (far if ready is near else near).sendall(data)
                    except OSError:
                        return
                    if ready is near:
                        self.up += len(data)
                    else:
                        self.down += len(data)


class Rig:
    """A broker, a gateway, and one enrolled home with a small model."""

    def __init__(self, folder: Path, *, heartbeat: float) -> None:
        self.folder = folder
        (folder / "broker").mkdir(parents=True)
        self.broker = Broker(folder / "broker", Ca())
        self.broker.prepare()
        self.broker.start()
        self.gateway = Gateway(self.broker, signer := Signer())
        self.relay = Relay(self.broker.port)
        self.home, self.device = enrolled_home(
            folder / "home", self.broker.ca, signer, self.relay.port, heartbeat=heartbeat
        )
        self.slot = install(self.home, release(linear_onnx(1)))

    @property
    def model(self) -> Path:
        """The net's file."""
        return Path(self.home.blobs / self.slot.sha256)

    def close(self) -> None:
        """End all of it."""
        self.gateway.close()
        self.relay.close()
        self.broker.stop()

    @contextmanager
    def agent(self, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
        """A connected agent, and the seconds that it took from exec to its birth."""
        device = Device(self.home, self.device, ("--no-bench", *options))
        births, began = len(self.gateway.births), time.perf_counter()
        process = device.start()
        try:
            _until(lambda: len(self.gateway.births) > births, device.log)
            yield process, time.perf_counter() - began
        finally:
            process.terminate()
            process.wait(30)

    @contextmanager
    def bare(self) -> Iterator[tuple[subprocess.Popen[str], float]]:
        """The bare script, connected, and the seconds that it took."""
        folder = next(path.parent for path in self.home.identity.rglob("certificate.pem"))
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", BARE, str(folder), str(self.model), str(self.broker.port),
             self.device],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "connected\n":
                msg = "the bare script did not connect"
                raise RuntimeError(msg)
            yield process, time.perf_counter() - began
        finally:
            process.kill()
            process.wait()

    def first_answer(self, *, ours: bool) -> float:
        """Seconds from exec to the end of a program that infers once."""
        script, model = (OUR_ANSWER, self.home.root) if ours else (BARE_ANSWER, self.model)
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", script, str(model)], cwd=ROOT, check=True)
        return time.perf_counter() - began


def memory(pid: int) -> dict[str, float]:
    """MiB of a process: VmRSS, and what of it is its own (RssAnon) and of files (RssFile)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {line.split(":")[0]: line.split()[1:2] for line in lines}
    return {name: int(found[name][0]) / 1024 for name in ("VmRSS", "RssAnon", "RssFile")}


def cpu_seconds(pid: int) -> float:
    """CPU seconds of all threads so far (/proc/<pid>/task/*/schedstat: nanoseconds)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def written(pid: int) -> int:
    """Bytes that it has had written to the disk."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def switches(pid: int) -> int:
    """How often its threads have waited so far: each is a wake-up."""
    return sum(
        int(line.split()[1])
        for task in Path(f"/proc/{pid}/task").iterdir()
        for line in (task / "status").read_text().splitlines()
        if line.startswith("voluntary")
    )


def _until(condition: object, log: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise TimeoutError(log())  # type: ignore[operator]
        time.sleep(0.002)


os.environ.setdefault("PYTHONPATH", str(ROOT))
