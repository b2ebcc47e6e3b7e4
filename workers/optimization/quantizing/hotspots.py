"""Operators that run slower in INT8 than in float: found in ONNX Runtime's own profile.

A convolution of one input channel is such a one: its INT8 kernel has nothing to gather into
vectors, and took 75 µs where the float one took 19 (DESIGN §5).
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import onnx
import onnxruntime as ort

from workers.optimization.quantizing.layers import Layer
from workers.optimization.session import PROVIDER, Array, fixed_batch, options

RUNS = 30
WARM_UP = 5
SLOWER = 1.2
"""Times as slow as in float, to be worth a look."""

LEAST_GAIN = 0.1
"""Of the whole inference, that leaving them in float must promise, to be worth a trial."""

LEAST_US = 5.0
"""Microseconds, in which the profile counts."""

_KERNEL = "_kernel_time"
_ADDED = re.compile(r"^fused |_nchwc$|_token_\d+$|_quant$")


def slow_nodes(
    plain: Path, quantized: Path, layers: Sequence[Layer], prepared: onnx.GraphProto, x: Array
) -> tuple[str, ...]:
    """The operators of those layers that run slower quantized, if leaving them promises much.

    Args:
        plain: the graph in float.
        quantized: the same, quantized.
        layers: of the graph.
        prepared: the graph from which the quantized one was made.
        x: real inputs, (n, …); single ones are run.
    """
    names = _owners(layers, prepared)
    before, after = (_times(path, names, x) for path in (plain, quantized))
    slow = [i for i, time in after.items() if 0 <= i in before and time > SLOWER * before[i]]
    gain = sum(after[i] - before[i] for i in slow)
    if gain < max(LEAST_GAIN * sum(after.values()), LEAST_US):
        return ()
    return tuple(name for i in sorted(slow) for name in layers[i].nodes)


def _owners(layers: Sequence[Layer], graph: onnx.GraphProto) -> dict[str, int]:
    """The layer of an operator, by its name and, as fusions name things, by its output's."""
    index = {name: i for i, layer in enumerate(layers) for name in layer.nodes}
    found = dict(index)
    for node in graph.node:
        if node.name in index:
            found.update(dict.fromkeys(node.output, index[node.name]))
    return found


def _times(path: Path, owners: Mapping[str, int], x: Array) -> dict[int, float]:
    """Median microseconds by layer; under -1 what belongs to none."""
    runs: dict[str, list[float]] = defaultdict(list)
    for event in _events(path, x):
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            runs[name.removesuffix(_KERNEL)].append(float(event.get("dur", 0)))
    found: dict[int, float] = defaultdict(float)
    for name, times in runs.items():
        bare = name
        while (shorter := _ADDED.sub("", bare)) != bare:
            bare = shorter
        found[owners.get(bare, -1)] += median(times[WARM_UP:] or times)
    return found


def _events(path: Path, x: Array) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="argosy-profile-") as folder:
        chosen = options()
        chosen.enable_profiling = True
        chosen.profile_file_prefix = f"{folder}/profile"
        session = ort.InferenceSession(str(path), chosen, providers=[PROVIDER])
        name, size = session.get_inputs()[0].name, fixed_batch(session) or 1
        for i in range(WARM_UP + RUNS):
            rows = [(i * size + k) % len(x) for k in range(size)]
            session.run(None, {name: x[rows]})
        found: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    return found
