"""What a user wrote, and how a mistake in it is told."""

from __future__ import annotations

import pytest

from orchestrator.cli.authored import build
from orchestrator.cli.failures import say_error
from orchestrator.cli.refs import split
from orchestrator.errors import Invalid
from schemas.experiment import ExperimentSpec
from schemas.model import RevokeRequest


def test_a_mistake_of_no_field_is_told_without_one() -> None:
    with pytest.raises(Invalid, match=r"^a and b are the same version"):
        build(ExperimentSpec, {}, model="digits", a=1, b=1)


def test_a_mistake_of_a_field_names_its_option() -> None:
    with pytest.raises(Invalid, match=r"^--share: "):
        build(ExperimentSpec, {"share": "--share"}, model="digits", a=1, b=2, share=7.0)


@pytest.mark.parametrize(
    ("given", "told"),
    [("", "must not be empty"), ("x" * 10_000, "must have at most 2000 characters")],
)
def test_what_is_too_long_or_too_short_is_told_in_a_line(given: str, told: str) -> None:
    names = {"reason": "--reason"}
    with pytest.raises(Invalid, match=rf"^--reason: {told} \(it is ") as refused:
        build(RevokeRequest, names, reason=given)
    assert len(refused.value.detail) < 200


def test_of_what_nobody_could_read_a_part_is_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    say_error(f"there is no rollout {'x' * 10_000} here")
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: there is no rollout {'x' * 80}… here"


@pytest.mark.parametrize("ref", ["Digits", "digits_2@1", "d" * 64, "-d", "x" * 10_000])
def test_what_is_no_name_of_a_model_is_told_before_anybody_is_asked(ref: str) -> None:
    with pytest.raises(Invalid, match="is not a model's name") as refused:
        split(ref)
    assert len(refused.value.detail) < 200
