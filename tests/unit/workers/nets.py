"""Nets of the kinds that pruning and quantization must cope with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

CLASSES = 10


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(32, 48, 3, padding=1, bias=False),
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.Conv2d(48, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
        )
        self.last = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return self.last(torch.relu(x + self.body(x)).mean((2, 3)))


class Mobile(nn.Module):
    """Depthwise and grouped convolutions, and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(16, 64, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU6(),
            nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU6(),
            nn.Conv2d(64, 16, 1, bias=False),
            nn.BatchNorm2d(16),
        )
        self.grouped = nn.Conv2d(16, 32, 3, padding=1, groups=4)
        self.last = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(torch.relu(self.grouped(x + self.body(x))).mean((2, 3)))


class Attention(nn.Module):
    """Heads of a fixed size, which no channel can leave."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(16, 64), nn.Linear(64, 64)
        self.qkv, self.norm = nn.Linear(64, 192), nn.LayerNorm(64)
        self.wide, self.narrow = nn.Linear(64, 128), nn.Linear(128, 64)
        self.last = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        n, length, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, length, 3, 4, 16).permute(2, 0, 3, 1, 4)
        seen = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        x = x + self.out(seen.transpose(1, 2).reshape(n, length, 64))
        return self.last((x + self.narrow(torch.relu(self.wide(x)))).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 32, batch_first=True)
        self.hidden, self.last = nn.Linear(32, 64), nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.hidden(self.gru(x)[0][:, -1])))


def series() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(6, 32, 5),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Conv1d(32, 64, 5),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Flatten(),
        nn.Linear(64 * 12, 40),
        nn.ReLU(),
        nn.Linear(40, CLASSES),
    )


def dense() -> nn.Module:
    return nn.Sequential(
        nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, CLASSES)
    )


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, (1, 8, 8)),
    "mobile": (Mobile, (1, 8, 8)),
    "attention": (Attention, (8, 16)),
    "recurrent": (Recurrent, (12, 6)),
    "series": (series, (6, 32)),
    "dense": (dense, (16,)),
}


def made(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A net with running statistics as after some training, and inputs for it."""
    torch.manual_seed(seed)
    factory, shape = NETS[name]
    net = factory()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return net.eval(), torch.randn(4, *shape)
