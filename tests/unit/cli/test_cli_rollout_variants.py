"""What a rollout says of variants: a draft's preview, and why a device gets none."""

from __future__ import annotations

from typing import Any

import pytest
from argosy_fake_platform import NOW, State, rollout_view

from schemas.rollout import ExecState, RolloutState, WaveState
from schemas.rollout_view import ExecutionView, RolloutView, VariantShare, WaveView

REASON = "no variant fits: int8: has 0.4 MB, class mcu allows 0.05; fp32: " + "needs more " * 20


def draft() -> RolloutView:
    preview = (
        VariantShare(device_class="cam", variant="int8", devices=2, p50_ms=1.24, estimated=True),
        VariantShare(device_class="mcu", devices=1, reason=REASON),
        VariantShare(device_class="pi", variant="fp32", devices=3, p50_ms=30.0),
        VariantShare(device_class="new", variant="fp32", devices=1, estimated=True),
    )
    return rollout_view(RolloutState.DRAFT, preview=preview)


def stuck() -> RolloutView:
    execution = ExecutionView(
        id="exe_0000000000000000",
        device="dev_0000000000000000",
        wave=0,
        attempt=1,
        state=ExecState.NO_VARIANT,
        detail=REASON,
        updated_at=NOW,
    )
    wave = WaveView(index=0, state=WaveState.INCONCLUSIVE, size=1, executions=(execution,))
    return rollout_view(RolloutState.PAUSED, waves=(wave,))


@pytest.mark.parametrize("make", [draft, stuck])
def test_every_reason_is_shown_and_is_in_the_json(argosy: Any, fake: State, make: Any) -> None:
    view = make()
    fake.rollouts[view.id] = [view]
    shown = argosy("rollout", "get", view.id)
    assert shown.code == 0
    assert REASON.strip() in shown.out
    answer = argosy("rollout", "get", view.id, "-o", "json")
    assert RolloutView.model_validate_json(answer.out) == view


def test_a_draft_says_who_would_get_which_variant(argosy: Any, fake: State) -> None:
    view = draft()
    fake.rollouts[view.id] = [view]
    lines = argosy("rollout", "get", view.id).out
    assert "class cam: 2 devices would get int8, 1.24 ms by estimate" in lines
    assert "class mcu: 1 device would get nothing" in lines
    assert "class pi: 3 devices would get fp32, 30.0 ms measured there" in lines
    assert "class new: 1 device would get fp32, not measured yet" in lines
