from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests.unit.workers.nets import CLASSES, NETS, made
from workers.errors import JobFailed, UsageError
from workers.optimization.pruning.masked import mask
from workers.optimization.pruning.prune import kept, prune


@pytest.mark.parametrize("name", sorted(NETS))
@pytest.mark.parametrize("share", [0.5, 0.75])
def test_what_is_left_is_smaller_and_takes_and_gives_the_same(name: str, share: float) -> None:
    net, x = made(name)
    before = copy.deepcopy(net.state_dict())

    found = prune(net, x, share, classes=CLASSES)

    assert found.parameters[1] < found.parameters[0]
    assert found.parameters[1] == sum(p.numel() for p in found.net.parameters())
    logits = found.net(x)
    assert logits.shape == (4, CLASSES)
    assert torch.isfinite(logits).all()
    assert found.net(torch.cat([x, x])).shape == (8, CLASSES)
    for key, value in net.state_dict().items():  # the net that was given is as it was
        assert torch.equal(value, before[key])


def test_channels_that_are_added_go_together() -> None:
    net, x = made("residual")

    found = prune(net, x, 0.5, classes=CLASSES)

    assert found.channels == {"stem": (32, 16), "body.0": (48, 24), "body.3": (32, 16)}


def test_a_depthwise_convolution_stays_one_and_groups_stay_even() -> None:
    net, x = made("mobile")

    found = prune(net, x, 0.5, classes=CLASSES).net

    depthwise, grouped = found.get_submodule("body.3"), found.get_submodule("grouped")
    assert depthwise.groups == depthwise.in_channels == depthwise.out_channels == 32
    assert grouped.groups == 4
    assert grouped.in_channels % 4 == grouped.out_channels % 4 == 0


def test_heads_and_recurrent_layers_keep_their_size() -> None:
    net, x = made("attention")
    heads = prune(net, x, 0.5, classes=CLASSES)
    net, x = made("recurrent")
    recurrent = prune(net, x, 0.5, classes=CLASSES)

    assert "qkv" in heads.kept_out
    assert heads.channels["wide"] == (128, 64)
    assert recurrent.channels == {"hidden": (64, 32)}


def test_the_weakest_channels_go_and_the_others_mean_the_same() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, CLASSES)).eval()
    weak = torch.arange(0, 32, 2)
    with torch.no_grad():
        net[0].weight[weak] *= 1e-3
        net[2].weight[:, weak] *= 1e-3
    x = torch.randn(16, 8)

    found = prune(net, x, 0.5, classes=CLASSES)

    assert torch.equal(found.net[0].weight, net[0].weight[1::2])
    with torch.no_grad():
        masked = copy.deepcopy(net)
        mask(masked[2], weak.tolist(), inputs=True)
        assert torch.allclose(found.net(x), masked(x), atol=1e-6)


def test_a_net_without_room_says_so() -> None:
    net = nn.Linear(8, CLASSES)

    with pytest.raises(UsageError, match="cannot be pruned: none of its channels"):
        prune(net, torch.randn(4, 8), 0.5, classes=CLASSES)


def test_a_hidden_layer_whose_width_is_written_into_the_forward_is_kept_out() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 64), nn.Linear(64, 32)
            self.last = nn.Linear(32, CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.first(x)).view(-1, 4, 16).transpose(1, 2).reshape(-1, 64)
            return self.last(torch.relu(self.second(y)))

    found = prune(Fixed().eval(), torch.randn(4, 8), 0.5, classes=CLASSES)

    assert found.channels == {"second": (32, 16)}
    assert "first" in found.kept_out


def test_a_forward_that_raises_is_its_writer_s() -> None:
    class Broken(nn.Module):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            msg = "nothing here"
            raise RuntimeError(msg)

    with pytest.raises(JobFailed, match="nothing here"):
        prune(Broken(), torch.randn(4, 8), 0.5, classes=CLASSES)


def test_frozen_weights_stay_frozen() -> None:
    net, x = made("dense")
    net[0].weight.requires_grad = False

    found = prune(net, x, 0.5, classes=CLASSES).net

    assert not found[0].weight.requires_grad
    assert found[2].weight.requires_grad


@pytest.mark.parametrize(
    ("channels", "share", "groups", "expected"),
    [(64, 0.5, 1, 32), (64, 0.75, 1, 16), (32, 0.75, 1, 8), (8, 0.75, 1, 2), (96, 0.5, 1, 48),
     (512, 0.75, 1, 128), (1, 0.9, 1, 1), (32, 0.5, 4, 16), (100, 0.01, 1, 96)],
)  # fmt: skip
def test_how_many_stay(channels: int, share: float, groups: int, expected: int) -> None:
    assert kept(channels, share, groups) == expected
