"""The version that devices go back to is named as any other: by number, alias or whole."""

from __future__ import annotations

from typing import Any

import pytest
from argosy_fake_platform import State, rollout_view

from schemas.model import ModelView
from schemas.rollout import RolloutState


@pytest.fixture
def running(fake: State) -> str:
    fake.models = [ModelView(name="digits", versions=(1, 2, 3), aliases={"champion": 2})]
    view = rollout_view(RolloutState.RUNNING)
    fake.rollouts[view.id] = [view]
    return view.id


@pytest.mark.parametrize("named", ["2", "champion", "digits@2", "digits:2", "digits@champion"])
def test_a_rollback_takes_whatever_names_a_version(
    argosy: Any, fake: State, running: str, named: str
) -> None:
    assert argosy("rollout", "rollback", running, "--to", named).code == 0
    assert fake.bodies[-1]["to"] == 2


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("faces@2", "--to: 'faces@2' is of another model than digits"),
        ("gold", "digits has no version 'gold'"),
        ("0", "--to: '0' is no version of digits"),
        ("digits@", "--to: 'digits@' is no version of digits"),
        ("digits@2@3", "--to: 'digits@2@3' is no version of digits"),
    ],
)
def test_what_is_no_version_of_its_model_is_refused_before_anything_is_asked(
    argosy: Any, fake: State, running: str, named: str, said: str
) -> None:
    answer = argosy("rollout", "rollback", running, "--to", named)
    assert answer.code != 0
    assert said in answer.err
    assert not fake.bodies


def test_a_plan_and_a_revocation_read_it_alike(argosy: Any, fake: State, running: str) -> None:
    args = ("--on-failure", "roll-back", "--rollback-to")
    assert argosy("rollout", "plan", "digits@3", *args, "digits@2").code == 0
    assert next(reversed(fake.rollouts.values()))[0].spec.rollback_to == 2
    answer = argosy("rollout", "plan", "digits@3", *args, "faces@2")
    assert "--rollback-to: 'faces@2' is of another model than digits" in answer.err
    answer = argosy("model", "revoke", "digits@3", "--reason", "x", "-y", "--rollback",
                    "--to", "faces:1")  # fmt: skip
    assert "--to: 'faces:1' is of another model than digits" in answer.err
