"""Nets to time, made in a second: a fixed architecture with random weights, which time alike.

``tiny`` is a linear classifier, ``small`` a convolutional one for 8 x 8 digits, ``mobilenet``
MobileNetV2 at 224 x 224 with its normalization folded in (Sandler et al., CVPR 2018, table 2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from edge_client.inference import Loaded, load_model
from edge_client.sessions import SessionSettings
from edge_client.slots import Slot
from schemas.dataset import Baseline, Feature
from schemas.measure import Golden, ModelFile
from schemas.model import Manifest, Variant
from schemas.signature import Signature, TensorSpec

Array = npt.NDArray[np.float32]


class Net:
    """A graph that grows by one layer at a time; ``at`` is its end, of ``channels`` channels."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._rng = np.random.default_rng(0)
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self.shape, self.at, self.channels = shape, "x", shape[0]

    def add(self, op: str, *more: Array, other: str | None = None, **attributes: Any) -> None:
        names = [self.at] if other is None else [self.at, other]
        for value in more:
            names.append(f"w{len(self._weights)}")
            self._weights.append(numpy_helper.from_array(value, names[-1]))
        self.at = f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, names, [self.at], **attributes))

    def random(self, *shape: int) -> Array:
        fan_in = int(np.prod(shape[1:])) or 1
        drawn: Array = self._rng.standard_normal(shape, np.float32)
        return drawn * np.float32((2 / fan_in) ** 0.5)

    def conv(self, out: int, side: int, *, stride: int = 1, group: int = 1) -> None:
        weights = self.random(out, self.channels // group, side, side)
        pads = [side // 2] * 4
        bias = np.zeros(out, np.float32)
        self.add("Conv", weights, bias, strides=[stride] * 2, pads=pads, group=group)
        self.channels = out

    def relu6(self) -> None:
        self.add("Clip", np.array(0, np.float32), np.array(6, np.float32))

    def classify(self, features: int, classes: int) -> None:
        self.add("Gemm", self.random(classes, features), np.zeros(classes, np.float32), transB=1)
        self.add("Softmax", axis=-1)

    def model(self, classes: int) -> bytes:
        self._nodes.append(helper.make_node("Identity", [self.at], ["y"]))
        graph = helper.make_graph(
            self._nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *self.shape])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", classes])],
            self._weights,
        )
        opset = [helper.make_opsetid("", 17)]
        data: bytes = helper.make_model(
            graph, opset_imports=opset, ir_version=10
        ).SerializeToString()
        return data


def tiny() -> tuple[bytes, tuple[int, ...], int]:
    """softmax(x @ w), 4 → 3."""
    net = Net((4,))
    net.classify(4, 3)
    return net.model(3), net.shape, 3


def small() -> tuple[bytes, tuple[int, ...], int]:
    """Two convolutions and two layers, 1 x 8 x 8 → 10."""
    net = Net((1, 8, 8))
    for out in (16, 32):
        net.conv(out, 3)
        net.add("Relu")
    net.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    net.add("Flatten")
    net.add("Gemm", net.random(64, 512), np.zeros(64, np.float32), transB=1)
    net.add("Relu")
    net.classify(64, 10)
    return net.model(10), net.shape, 10


def mobilenet() -> tuple[bytes, tuple[int, ...], int]:
    """MobileNetV2 1.0, 3 x 224 x 224 → 1000."""
    net = Net((3, 224, 224))
    net.conv(32, 3, stride=2)
    net.relu6()
    # Expansion, channels, repeats, stride: the paper's table 2.
    for t, c, n, s in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for i in range(n):
            _inverted(net, t, c, s if i == 0 else 1)
    net.conv(1280, 1)
    net.relu6()
    net.add("GlobalAveragePool")
    net.add("Flatten")
    net.classify(1280, 1000)
    return net.model(1000), net.shape, 1000


def _inverted(net: Net, expansion: int, out: int, stride: int) -> None:
    before, channels = net.at, net.channels
    if expansion > 1:
        net.conv(channels * expansion, 1)
        net.relu6()
    net.conv(net.channels, 3, stride=stride, group=net.channels)
    net.relu6()
    net.conv(out, 1)
    if stride == 1 and channels == out:
        net.add("Add", other=before)


NETS: dict[str, Callable[[], tuple[bytes, tuple[int, ...], int]]] = {
    "tiny": tiny,
    "small": small,
    "mobilenet": mobilenet,
}


def loaded(name: str, settings: SessionSettings | None = None) -> tuple[bytes, Loaded, Array]:
    """A net's file, the same as a device serves it, with a baseline to count, and one input."""
    return packed(name, NETS[name](), settings)


def packed(
    name: str, net: tuple[bytes, tuple[int, ...], int], settings: SessionSettings | None = None
) -> tuple[bytes, Loaded, Array]:
    """The same of a net that was made before."""
    data, shape, classes = net
    edges = tuple(float(x) for x in np.linspace(-1, 1, 11))
    baseline = Baseline(
        n=1000,
        features=tuple(
            Feature(name=name, edges=edges, counts=(100,) * 10) for name in ("mean", "std")
        ),
    )
    file = ModelFile(
        path="net.onnx",
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        leaves_sha256="0" * 64,
    )
    manifest = Manifest(
        model=name,
        signature=Signature(
            inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, *shape), range=(-10, 10)),),
            outputs=(TensorSpec(name="y", dtype="float32", shape=(-1, classes)),),
        ),
        variants=(
            Variant(
                id="fp32",
                precision="fp32",
                scheme="none",
                opset=17,
                file=file,
                golden=Golden(file=file, samples=1, tolerance=1e-3),
            ),
        ),
        baseline=baseline,
    )
    model = load_model(data, manifest, "fp32", settings=settings)
    slot = Slot(model=name, version=1, variant="fp32", sha256=file.sha256, manifest_sha256="0" * 64)
    x = np.random.default_rng(1).uniform(-1, 1, (1, *shape)).astype(np.float32)
    return data, Loaded(slot, model, manifest), x
