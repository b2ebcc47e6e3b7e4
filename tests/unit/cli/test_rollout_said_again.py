"""Which version and which wave a command means is said, so that nobody means another one."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from argosy_fake_platform import State, rollout_view

from orchestrator.client import Argosy
from orchestrator.client.errors import InterruptedAnswerError
from orchestrator.client.rollouts import open_wave
from orchestrator.client.transport import Transport
from orchestrator.errors import ArgosyError
from schemas.model import ModelView
from schemas.rollout import RolloutState, WaveState
from schemas.rollout_view import RolloutView, WaveView

W = WaveState


def waves(*states: WaveState, stragglers: int | None = None) -> RolloutView:
    made = tuple(
        WaveView(index=i, state=state, size=1, stragglers=i == stragglers)
        for i, state in enumerate(states)
    )
    return rollout_view(RolloutState.RUNNING, waves=made)


def test_the_wave_that_is_worked_on_is_the_first_left_and_stragglers_come_last() -> None:
    assert open_wave(waves(W.PASSED, W.RUNNING, W.PENDING)) == 1
    assert open_wave(waves(W.PASSED, W.RUNNING, W.PENDING, stragglers=1)) == 2
    assert open_wave(waves(W.PASSED)) is None


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("digits", "digits@3, the newest version"),
        ("digits@champion", "digits@2, which is champion"),
        ("digits:champion", "digits@2, which is champion"),
        ("digits:2", None),
    ],
)
def test_a_start_says_which_version_it_takes(
    argosy: Any, fake: State, ref: str, said: str | None
) -> None:
    fake.models = [ModelView(name="digits", versions=(1, 3, 2), aliases={"champion": 2})]
    answer = argosy("rollout", "start", ref)
    assert answer.code == 0
    if said is None:
        assert "digits@" not in answer.err
        assert next(iter(fake.rollouts.values()))[0].spec.version == 2
    else:
        assert said in answer.err


def test_a_start_whose_answer_is_lost_names_the_draft(argosy: Any, fake: State) -> None:
    """To say it again would plan a second rollout."""
    fake.models = [ModelView(name="digits", versions=(1,))]

    def started(method: str, path: str) -> bool:
        return method == "POST" and path.endswith("/start")

    fake.lost_when = started
    answer = argosy("rollout", "start", "digits@1")
    assert answer.code != 0
    (draft,) = fake.rollouts
    assert f"`argosy rollout start {draft}`" in answer.err


def test_a_promotion_names_the_wave_that_was_looked_up(argosy: Any, fake: State) -> None:
    view = waves(W.PASSED, W.RUNNING, W.PENDING)
    fake.rollouts[view.id] = [view]
    assert argosy("rollout", "promote", view.id).code == 0
    assert fake.bodies[-1] == {"reason": "", "to": None, "full": False, "wave": 1}
    assert argosy("rollout", "promote", view.id, "--wave", "1").code == 0
    assert fake.bodies[-1]["wave"] == 0
    assert argosy("rollout", "promote", view.id, "--full").code == 0
    assert "wave" not in fake.bodies[-1]
    both = argosy("rollout", "promote", view.id, "--full", "--wave", "1")
    assert (both.code, "--wave: --full means every wave" in both.err) == (2, True)


def test_a_platform_from_before_takes_a_promotion_without_the_name_of_its_wave(
    argosy: Any, fake: State
) -> None:
    view = waves(W.PASSED, W.RUNNING, W.PENDING)
    fake.rollouts[view.id], fake.unknown = [view], {"wave"}
    assert argosy("rollout", "promote", view.id).code == 0
    assert (len(fake.bodies), fake.bodies[-1]) == (2, {})
    named = argosy("rollout", "promote", view.id, "--wave", "1")
    assert (named.code, "wave: Extra inputs" in named.err) == (2, True)


def test_a_promotion_whose_answer_is_lost_says_how_to_repeat_it(
    platform_env: dict[str, str], fake: State
) -> None:
    view = waves(W.PASSED, W.RUNNING, W.PENDING)
    fake.rollouts[view.id] = [view]
    fake.lost_when = lambda method, _path: method == "POST"
    with (
        Argosy(platform_env["ARGOSY_URL"], platform_env["ARGOSY_TOKEN"]) as argosy,
        pytest.raises(InterruptedAnswerError) as lost,
    ):
        argosy.rollouts.promote(view.id)
    assert "promote wave 2 again, by its number" in (lost.value.hint or "")


@pytest.mark.parametrize(
    ("argv", "path", "said"),
    [
        (["rollback", "ROLLOUT", "--watch"], "/rollback", "what was asked of ROLLOUT may have"),
        (["abort", "ROLLOUT"], "/abort", "what was asked of ROLLOUT may have been done"),
        (["retry", "ROLLOUT"], "/retry", "what was asked of ROLLOUT may have been done"),
        (["start", "ROLLOUT", "--watch"], "/start", "what was asked of ROLLOUT may have been"),
        (["start", "digits@1"], "/v1/rollouts", "it may have been planned; nothing was started"),
    ],
)
def test_who_interrupts_an_act_hears_that_it_may_be_done(
    argosy: Any,
    fake: State,
    monkeypatch: pytest.MonkeyPatch,
    argv: list[str],
    path: str,
    said: str,
) -> None:
    view = rollout_view(RolloutState.RUNNING)
    fake.rollouts[view.id] = [view]
    fake.models = [ModelView(name="digits", versions=(1,))]
    post = Transport.post

    def interrupted(self: Transport, to: str, *args: Any, **more: Any) -> Any:
        if not to.endswith(path):
            return post(self, to, *args, **more)
        with suppress(ArgosyError):
            post(self, to, *args, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(Transport, "post", interrupted)
    answer = argosy("rollout", *(word.replace("ROLLOUT", view.id) for word in argv))
    assert answer.code == 130
    assert said.replace("ROLLOUT", view.id) in answer.err
    shows = "argosy rollout ls" if path == "/v1/rollouts" else f"argosy rollout get {view.id}"
    assert f"look with `{shows}`" in answer.err
