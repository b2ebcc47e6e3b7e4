"""A fine-tuned net, exported as a job exports it, costs what its update is worth."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import onnx
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from edge_client.patch import apply
from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.adapters.patch_maker import FilePatchMaker
from schemas.signature import Signature, TensorSpec
from schemas.transfer import CHUNK_BYTES
from workers.optimization.exporting.export import export

pytestmark = pytest.mark.integration

PIXELS = TensorSpec(name="pixels", dtype="float32", shape=(-1, 1, 8, 8))
CHANCES = TensorSpec(name="probabilities", dtype="float32", shape=(-1, 10))


def net() -> nn.Sequential:
    torch.manual_seed(1)
    body = (nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU())
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(4096, 256), nn.ReLU(), nn.Linear(256, 10))


def tune(model: nn.Sequential, part: nn.Module, steps: int) -> None:
    data = load_digits()
    x = torch.from_numpy(data.images.astype(np.float32)[:, None] / 16)
    y = torch.from_numpy(data.target)
    optimizer = torch.optim.SGD(part.parameters(), lr=0.01, momentum=0.9)
    for step in range(steps):
        rows = slice(64 * step, 64 * step + 64)
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The bytes of the net, and those after its last layer was tuned."""
    folder = tmp_path_factory.mktemp("nets")
    samples = load_digits().images.astype(np.float32)[:8, None] / 16
    signature = Signature(inputs=(PIXELS,), outputs=(CHANCES,))
    model, found = net(), []
    for name, part in (("base", None), ("head", model[-1])):
        if part is not None:
            tune(model, part, 8)
        export(model, signature, samples, folder / f"{name}.onnx")
        found.append((folder / f"{name}.onnx").read_bytes())
    return found


def delivered(folder, base: bytes, target: bytes) -> tuple[int, bytes]:
    """What crosses the network, patch and pulled chunks, and what the device has then."""
    store = ArtifactStore(folder / "artifacts")
    names = [hashlib.sha256(data).hexdigest() for data in (base, target)]
    for name, data in zip(names, (base, target), strict=True):
        store.put([data], name, len(data))
    maker = FilePatchMaker(store, folder / "patches")
    with maker.make(names[0], names[1], lambda: True) as made:
        assert made is not None
        patch = b"".join(made.pieces())
    leaves = store.leaves(names[1])
    result, missing = bytearray(len(target)), set(range(len(leaves)))

    def write(index: int, data: bytes) -> bool:
        if hashlib.sha256(data).digest() != leaves[index]:
            return False
        result[index * CHUNK_BYTES : index * CHUNK_BYTES + len(data)] = data
        missing.discard(index)
        return True

    apply(io.BytesIO(patch), io.BytesIO(base), wanted=missing.__contains__, write=write)
    for index in missing:
        chunk = store.read_chunk(names[1], index)
        result[index * CHUNK_BYTES : index * CHUNK_BYTES + len(chunk)] = chunk
    return len(patch) + len(missing) * CHUNK_BYTES, bytes(result)


def test_a_tuned_last_layer_costs_at_most_a_hundredth(exported, tmp_path):
    base, head = exported
    assert head != base
    cost, result = delivered(tmp_path, base, head)
    assert result == head
    assert cost <= 0.01 * len(head)


def test_a_longer_header_changes_nothing_of_that(exported, tmp_path):
    base, head = exported
    model = onnx.load_from_string(head)
    model.producer_version = "a version with a much longer name than before"
    model.graph.doc_string = "tuned at the customer's"
    longer = model.SerializeToString()
    cost, result = delivered(tmp_path, base, longer)
    assert result == longer
    assert cost <= 0.01 * len(longer)
