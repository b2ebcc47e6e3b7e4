"""Channels at zero: what a pruned net is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

_CONV = nn.modules.conv._ConvNd  # noqa: SLF001 - all convolutions at once
_TRANSPOSED = nn.modules.conv._ConvTransposeNd  # noqa: SLF001 - likewise
_BY_CHANNEL = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)  # noqa: SLF001 - likewise
_OVER_CHANNELS = (nn.LayerNorm, nn.GroupNorm)


def supported(module: nn.Module) -> bool:
    """Whether channels of a layer can be taken out at all.

    Recurrent layers and attention are not: their channels mean more than one thing.
    """
    kinds = (_CONV, nn.Linear, nn.PReLU, *_BY_CHANNEL, *_OVER_CHANNELS)
    grouped = isinstance(module, _TRANSPOSED) and module.groups > 1
    return isinstance(module, kinds) and not grouped


@torch.no_grad()
def mask(module: nn.Module, channels: Sequence[int], *, inputs: bool) -> bool:
    """Set channels of a layer to zero, in place.

    Args:
        module: see ``supported``.
        channels: which.
        inputs: those that it reads, not those that it gives.

    Returns:
        Whether the net then gives what it would without them. Not after a norm that
        reckons over channels.
    """
    rows = torch.as_tensor(list(channels), dtype=torch.int64)
    if isinstance(module, _OVER_CHANNELS):
        return False
    if isinstance(module, _BY_CHANNEL):
        for values in (module.weight, module.bias):
            if values is not None:
                values[rows] = 0.0
        return True
    if not isinstance(module, (_CONV, nn.Linear)):
        return True  # PReLU: of nothing it makes nothing
    if inputs:
        _mask_inputs(module, rows)
        return True
    weight = module.weight.transpose(0, 1) if isinstance(module, _TRANSPOSED) else module.weight
    weight[rows] = 0.0
    if module.bias is not None:
        module.bias[rows] = 0.0
    return True


def _mask_inputs(module: nn.Module, rows: torch.Tensor) -> None:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)  # noqa: S101 - a convolution or a linear layer
    if isinstance(module, _TRANSPOSED):
        weight[rows] = 0.0
        return
    groups = module.groups if isinstance(module, _CONV) else 1
    reads, gives = weight.shape[1], weight.shape[0] // groups
    for row in rows.tolist():
        part = row // reads
        weight[part * gives : (part + 1) * gives, row % reads] = 0.0
