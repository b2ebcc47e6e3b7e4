"""Which layers quantization damages most: each is quantized alone, and the outputs compared.

The figure is the ratio of signal to quantization noise at the graph's output (SQNR), as in
ONNX Runtime's and NNCF's accuracy tools; lowest first is the order in which layers are better
left in float.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from workers.optimization.point import SchemeName
from workers.optimization.quantizing.layers import Layer
from workers.optimization.quantizing.quantizer import Quantizer
from workers.optimization.session import Array, infer, open_session

log = logging.getLogger(__name__)

SCAN_SAMPLES = 64
SCAN_LIMIT = 96
"""Layers quantized alone at most, about half a second each; see ``widest``."""

PERFECT_DB = 200.0
_TINY = 1e-7


@dataclass(frozen=True, slots=True)
class Damage:
    """What quantizing a layer alone does. sqnr_db: lower is worse; None: it does not run."""

    layer: Layer
    sqnr_db: float | None

    def __str__(self) -> str:
        """For a log."""
        told = "does not run" if self.sqnr_db is None else f"{self.sqnr_db:.1f} dB"
        return f"{self.layer.nodes[0]} ({told})"


def scan(
    quantizer: Quantizer,
    scheme: SchemeName,
    samples: Array,
    *,
    beat: Callable[[], None],
    limit: int = SCAN_LIMIT,
) -> tuple[Damage, ...]:
    """Quantize layers one at a time.

    Args:
        quantizer: of the graph.
        scheme: static.
        samples: real inputs, (n, …), of the training data; ``SCAN_SAMPLES`` are used.
        beat: is called after each layer.
        limit: layers that are looked at.

    Returns:
        The most damaging first.
    """
    x = samples[:SCAN_SAMPLES]
    wanted = logits(infer(open_session(quantizer.source), x))
    with TemporaryDirectory(prefix="argosy-scan-") as folder:
        target = Path(folder) / "one.onnx"
        found = []
        for layer in widest(quantizer, limit):
            found.append(Damage(layer, _alone(quantizer, scheme, layer, x, wanted, target)))
            beat()
    return tuple(sorted(found, key=lambda one: -1e9 if one.sqnr_db is None else one.sqnr_db))


def _alone(
    quantizer: Quantizer,
    scheme: SchemeName,
    layer: Layer,
    x: Array,
    wanted: NDArray[np.float64],
    target: Path,
) -> float | None:
    try:
        quantizer.static(target, scheme, only=layer.nodes)
        return sqnr_db(wanted, logits(infer(open_session(target), x)))
    except Exception as error:  # noqa: BLE001 - the libraries raise what they like
        log.debug("layer %s cannot be quantized alone: %s", layer.nodes[0], error)
        return None


def widest(quantizer: Quantizer, limit: int) -> Sequence[Layer]:
    """The layers to look at: all, or those whose outputs span the widest ranges.

    The step of a quantized tensor is its range / 255, so a wide range is what loses most.
    """
    if len(quantizer.layers) <= limit:
        return quantizer.layers
    ranges = quantizer.ranges()

    def width(layer: Layer) -> float:
        low, high = ranges.get(layer.output, (0.0, 0.0))
        return high - low

    return sorted(quantizer.layers, key=width, reverse=True)[:limit]


def logits(outputs: Array) -> NDArray[np.float64]:
    """Outputs as what is to be kept: of probabilities, their logarithms about each row's mean.

    Softmax hides damage in what is nearly 0 or 1. outputs: (n, …); others stay as they are.
    """
    y = outputs.astype(np.float64).reshape(len(outputs), -1)
    sums = y.sum(axis=1)
    if y.shape[1] > 1 and bool((y >= 0).all()) and bool((np.abs(sums - 1) < 1e-2).all()):  # noqa: PLR2004 - rounding
        y = np.log(np.maximum(y, _TINY))
        y = y - y.mean(axis=1, keepdims=True)
    return y


def sqnr_db(wanted: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """10 log10 of signal energy over noise energy, at most ``PERFECT_DB``; -inf for NaN."""
    noise = float(np.square(wanted - found).sum())
    signal = float(np.square(wanted).sum())
    if not np.isfinite(noise):
        return float("-inf")
    if noise == 0 or signal == 0:
        return PERFECT_DB if noise == 0 else -PERFECT_DB
    return float(min(PERFECT_DB, 10 * np.log10(signal / noise)))
