"""Traffic to a device's local server, and a ledger of what it answered."""

from __future__ import annotations

import http.client
import json
import random
import socket
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from edge_client.settings import Home
from edge_client.slots import Slot, write_pointers
from edge_client.store import Store
from tests.fakes.edge_models import FEATURES, Release, pointing

KINDS = ("good", "good", "good", "fails", "refused")


def install(home: Home, release: Release, version: int = 1, *, active: bool = True) -> Slot:
    """Put a version where the agent would have put it."""
    home.create()
    manifest = json.loads(release.manifest)
    for sha256, data in release.files.items():
        (home.blobs / sha256).write_bytes(data)
    Store(home, 2**30).save_manifest(release.sha256, release.manifest)
    variant = manifest["variants"][0]
    slot = Slot(
        model=manifest["model"],
        version=version,
        variant=variant["id"],
        sha256=variant["file"]["sha256"],
        manifest_sha256=release.sha256,
    )
    if active:
        write_pointers(home.pointer, pointing(active=slot))
    return slot


@dataclass
class Ledger:
    """What was served, by the answers. n: tried, the failed ones included."""

    n: int = 0
    errors: int = 0
    rejected: int = 0
    classes: Counter[int] = field(default_factory=Counter)

    def add(self, other: Ledger) -> None:
        self.n += other.n
        self.errors += other.errors
        self.rejected += other.rejected
        self.classes += other.classes

    def answered(self, probabilities: list[float]) -> None:
        self.n += 1
        self.classes[max(range(len(probabilities)), key=probabilities.__getitem__)] += 1


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def serves(path: Path) -> bool:
    """Whether the model is ready behind a socket, which is there before it."""
    line = _Unix(path)
    try:
        line.request("GET", "/v2/models/digits/ready")
        return line.getresponse().status == 200
    except OSError:
        return False
    finally:
        line.close()


def send(path: Path, requests: int, seed: int) -> Ledger:
    """One request after the other, each answered before this returns; good ones and bad ones."""
    draw, ledger, line = random.Random(seed), Ledger(), _Unix(path)  # noqa: S311 - by seed
    for _ in range(requests):
        kind = draw.choice(KINDS)
        x = [draw.uniform(0.1, 3) for _ in range(FEATURES)]
        if kind == "fails":
            x[0] = -1.0  # of which the model takes the logarithm
        elif kind == "refused":
            x.append(1.0)
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, len(x)], "data": x}
        line.request("POST", "/v2/models/digits/infer", json.dumps({"inputs": [tensor]}))
        answer = line.getresponse()
        body = json.loads(answer.read())
        if kind == "good":
            assert answer.status == 200, body
            ledger.answered(body["outputs"][0]["data"])
            continue
        assert answer.status >= 400, body
        if kind == "fails":
            ledger.n, ledger.errors = ledger.n + 1, ledger.errors + 1
        else:
            ledger.rejected += 1
    line.close()
    return ledger
