"""What a user wrote, and how a mistake in it is told."""

from __future__ import annotations

import pytest

from orchestrator.cli.authored import build
from orchestrator.errors import Invalid
from schemas.experiment import ExperimentSpec


def test_a_mistake_of_no_field_is_told_without_one() -> None:
    with pytest.raises(Invalid, match=r"^a and b are the same version"):
        build(ExperimentSpec, {}, model="digits", a=1, b=1)


def test_a_mistake_of_a_field_names_its_option() -> None:
    with pytest.raises(Invalid, match=r"^--share: "):
        build(ExperimentSpec, {"share": "--share"}, model="digits", a=1, b=2, share=7.0)
