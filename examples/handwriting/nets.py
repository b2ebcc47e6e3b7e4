"""Two nets that are known from servers and phones, for pictures of 28 by 28 pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 10

# Of each stage: expansion, channels, blocks, first stride (Sandler et al., 2018, table 2).
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class Normalized(nn.Module):
    """Raw pixels in, logits out: what the camera gives goes into the graph as it is."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10) of pixels, uint8 (N, 1, 28, 28)."""
        logits: Tensor = self.net(x.to(torch.float32) / 127.5 - 1.0)
        return logits


def mobilenet(width: float = 1.0, stem: int = 1) -> nn.Module:
    """MobileNetV2 (Sandler et al., 2018, arXiv 1801.04381).

    stem: the first stride. 2 is the paper's, for pictures eight times as wide as these.
    """

    def scaled(channels: int) -> int:
        return max(8, int(channels * width + 4) // 8 * 8)

    taken = scaled(32)
    layers: list[nn.Module] = [_convolution(1, taken, 3, stride=stem, last=nn.ReLU6())]
    for expansion, channels, blocks, stride in STAGES:
        for number in range(blocks):
            given = scaled(channels)
            layers.append(_Inverted(taken, given, expansion, stride if number == 0 else 1))
            taken = given
    head = max(1280, scaled(1280))
    layers += [_convolution(taken, head, 1, last=nn.ReLU6()), nn.AdaptiveAvgPool2d(1)]
    layers += [nn.Flatten(), nn.Dropout(0.2), nn.Linear(head, CLASSES)]
    return Normalized(nn.Sequential(*layers))


def resnet(width: int = 64) -> nn.Module:
    """ResNet-18 (He et al., 2016, arXiv 1512.03385), with a stem for small pictures."""
    layers: list[nn.Module] = [_convolution(1, width, 3, last=nn.ReLU())]
    taken = width
    for number in range(4):
        given = width * 2**number
        layers += [_Residual(taken, given, 1 if number == 0 else 2), _Residual(given, given, 1)]
        taken = given
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(taken, CLASSES)]
    return Normalized(nn.Sequential(*layers))


class _Inverted(nn.Module):
    """Wide inside, narrow outside, with a shortcut where the sizes allow it."""

    def __init__(self, taken: int, given: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = taken * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(_convolution(taken, inner, 1, last=nn.ReLU6()))
        layers.append(_convolution(inner, inner, 3, stride=stride, groups=inner, last=nn.ReLU6()))
        layers.append(_convolution(inner, given, 1))
        self.layers = nn.Sequential(*layers)
        self.shortcut = stride == 1 and taken == given

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return x + found if self.shortcut else found


class _Residual(nn.Module):
    """Two convolutions beside a shortcut, which is a convolution where the sizes differ."""

    def __init__(self, taken: int, given: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(taken, given, 3, stride=stride, last=nn.ReLU())
        self.second = _convolution(given, given, 3)
        same = stride == 1 and taken == given
        self.shortcut = nn.Identity() if same else _convolution(taken, given, 1, stride=stride)
        self.last = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.second(self.first(x)) + self.shortcut(x))
        return found


def _convolution(
    taken: int,
    given: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    last: nn.Module | None = None,
) -> nn.Sequential:
    layer = nn.Conv2d(taken, given, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers: list[nn.Module] = [layer, nn.BatchNorm2d(given)]
    return nn.Sequential(*layers, *([last] if last is not None else []))
