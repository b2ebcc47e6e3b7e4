"""Pruning, over many nets and shares."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from workers.errors import UsageError
from workers.optimization.pruning.prune import kept, prune

CLASSES = 5


@given(
    st.integers(1, 4096), st.floats(0.01, 0.99), st.sampled_from([1, 2, 4, 8]),
)  # fmt: skip
def test_some_stay_evenly_and_about_the_share_goes(size: int, share: float, groups: int) -> None:
    channels = size * groups

    stay = kept(channels, share, groups)

    assert 0 < stay <= channels
    assert stay % groups == 0
    step = 16 if channels >= 64 else max(1, channels // 4)
    assert abs(stay - channels * (1 - share)) <= max(step, groups) * 1.0


@settings(max_examples=15)
@given(
    widths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    share=st.floats(0.1, 0.9),
    norms=st.booleans(),
)
def test_any_chain_is_smaller_after_or_says_why(
    *, widths: list[int], share: float, norms: bool
) -> None:
    torch.manual_seed(len(widths))
    layers: list[nn.Module] = []
    before = 3
    for width in widths:
        layers += [nn.Conv1d(before, width, 3, padding=1)]
        layers += [nn.BatchNorm1d(width)] if norms else []
        layers += [nn.ReLU()]
        before = width
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(before, CLASSES))
    x = torch.randn(3, 3, 12)

    try:
        found = prune(net.eval(), x, share, classes=CLASSES)
    except UsageError as error:
        assert "cannot be pruned" in str(error)  # noqa: PT017 - either may be right
        assert all(kept(width, share) == width for width in widths)
        return

    assert found.net(x).shape == (3, CLASSES)
    for name, (old, new) in found.channels.items():
        assert new == kept(old, share), name
