"""Training with quantization in the loop: the last rung, where nothing else keeps accuracy.

The weights and what each layer reads are rounded in the forward pass as the exported net's
will be, and the gradients pass as if they were not (straight-through; Jacob et al., 2018,
arXiv 1712.05877): weights symmetric per output channel in 8 bits, inputs per tensor in
unsigned 8 bits. What is left is a plain float net, which is then exported and quantized like
any other, and loses less by it.

Batch norms stand still meanwhile: they are folded into the weights afterwards, and a scale
per channel that is constant changes nothing of the rounding.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from schemas.jobfile import JobSpec
from workers.blame import user_code
from workers.errors import UsageError
from workers.optimization.pruning.finetune import PrunedNet, device_of, trained_net, tune_pass
from workers.optimization.pruning.netfile import load_net, pack_net
from workers.optimization.pruning.tune import tune
from workers.task import load_task

log = logging.getLogger(__name__)

RATE = 0.2
"""Of the task's own learning rate: the net is trained, only the rounding is new."""

MOMENTUM = 0.95
"""Of the running range of a layer's input, per batch."""

_CONV = nn.modules.conv._ConvNd  # noqa: SLF001 - all convolutions at once
_NORM = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - likewise
_TRANSPOSED = nn.modules.conv._ConvTransposeNd  # noqa: SLF001 - likewise
_LEVELS = 255
_LEAST = 1e-12


@dataclass(frozen=True, slots=True)
class QatOrder:
    """What to train so.

    spec: the job, with a task; ``optimize.qat_epochs`` of it. checkpoint: of the training.
    net: instead of the checkpoint's weights, a net that ``pack_net`` packed (a pruned one).
    weight_bits: 8, or 7 where the kernels' sums would overflow (see the scheme).
    float_layers: modules, by name, that stay in float. device: where to train.
    """

    spec: JobSpec
    checkpoint: bytes
    net: bytes | None = None
    weight_bits: int = 8
    float_layers: tuple[str, ...] = ()
    device: str = "cpu"


def train_quantized(order: QatOrder) -> PrunedNet:
    """Train a net for its quantization; ``channels`` of the result is empty.

    Raises:
        UsageError: the net has no layer that can be quantized.
        JobFailed: it diverged, or the task's own code raised.
    """
    started = time.monotonic()
    spec = order.spec
    task = load_task(spec.entrypoint, spec.config, spec.seed, spec.dataset.path)
    whole = trained_net(task, order.checkpoint)
    net = copy.deepcopy(whole) if order.net is None else load_net(task, order.net)
    before = order.net if order.net is not None else order.checkpoint
    with rounded(net, weight_bits=order.weight_bits, floating=order.float_layers):
        tuned = tune(
            task,
            spec,
            net,
            epochs=spec.optimize.qat_epochs,
            rate=RATE,
            device=device_of(order.device),
            name="quantization in the loop",
            teacher=whole,
            distill=spec.optimize.distill,
        )
    with user_code():
        fresh = task.model()
    packed = pack_net(net, fresh)
    log.info(
        "quantization in the loop: accuracy %.4f, after %d epochs %.4f; %.1f s",
        tuned.before,
        tuned.epochs,
        tuned.accuracy,
        time.monotonic() - started,
    )
    bits = order.weight_bits
    made = tune_pass("qat", tuned, before, packed, rate=RATE, weight_bits=bits)
    return PrunedNet(packed, {}, tuned.epochs, tuned.accuracy, (made,))


@contextmanager
def rounded(
    net: nn.Module, *, weight_bits: int = 8, floating: tuple[str, ...] = ()
) -> Iterator[None]:
    """Within: ``net`` computes as if it were quantized, and learns so. Afterwards it is plain.

    Args:
        net: any; its convolutions and linear layers are rounded.
        weight_bits: of the weights, 2..8.
        floating: names of layers that are left alone.

    Raises:
        UsageError: there is no such layer.
    """
    kinds = (_CONV, nn.Linear)
    layers = [m for n, m in net.named_modules() if isinstance(m, kinds) and n not in floating]
    # Weights that the net itself computes (weight norm) are left as it makes them.
    layers = [m for m in layers if not parametrize.is_parametrized(m)]
    if not layers:
        msg = "the net has no convolution or linear layer to quantize"
        raise UsageError(msg, "set optimize.qat_epochs to 0")
    with _still_norms(net):
        handles = [m.register_forward_pre_hook(_Input()) for m in layers]
        for module in layers:
            channel = 1 if isinstance(module, _TRANSPOSED) else 0
            parametrize.register_parametrization(module, "weight", _Weight(weight_bits, channel))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for module in layers:
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)


class _Weight(nn.Module):
    """Rounds a weight, symmetric per output channel."""

    def __init__(self, bits: int, channel: int) -> None:
        super().__init__()
        self._most = (1 << (bits - 1)) - 1
        self._channel = channel

    def forward(self, weight: Tensor) -> Tensor:
        """The weight as it will be."""
        rest = [axis for axis in range(weight.ndim) if axis != self._channel]
        scale = (weight.detach().abs().amax(rest) / self._most).clamp_min(_LEAST).float()
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(
            weight, scale, zero, self._channel, -self._most, self._most
        )


class _Input:
    """Rounds what a layer reads, by the running range of what it read in training."""

    def __init__(self) -> None:
        self._low: Tensor | None = None
        self._high: Tensor | None = None

    def __call__(self, module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """The input as the layer will have it."""
        x = given[0]
        if not x.is_floating_point():
            return given
        if module.training or self._low is None:
            self._watch(x.detach())
        assert self._low is not None  # noqa: S101 - set by the watch
        assert self._high is not None  # noqa: S101 - likewise
        scale = ((self._high - self._low) / _LEVELS).clamp_min(_LEAST)
        zero = (-self._low / scale).round().clamp(0, _LEVELS).to(torch.int32)
        rounded_x = torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, _LEVELS)
        return (rounded_x, *given[1:])

    def _watch(self, x: Tensor) -> None:
        low, high = x.amin().float().clamp_max(0.0), x.amax().float().clamp_min(0.0)
        if self._low is None or self._high is None:
            self._low, self._high = low, high
            return
        self._low = self._low.lerp(low, 1.0 - MOMENTUM)
        self._high = self._high.lerp(high, 1.0 - MOMENTUM)


@contextmanager
def _still_norms(net: nn.Module) -> Iterator[None]:
    """Within: batch norms use and keep their running statistics, in training too."""
    norms = [m for m in net.modules() if isinstance(m, _NORM)]
    handles = [m.register_forward_pre_hook(_evaluate) for m in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _evaluate(module: nn.Module, _: tuple[Any, ...]) -> None:
    module.training = False
