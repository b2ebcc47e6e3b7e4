"""An assignment is signed as python-tuf would: the same bytes, whatever it says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import TargetFile, Targets

from orchestrator.adapters.trust.assignments import AssignmentSigner
from orchestrator.adapters.trust.documents import sign
from schemas.ids import new_id
from schemas.pace import MaintenanceWindow, Mode, Urgency
from schemas.rollout import Assignment, Probation
from schemas.trust import desired_target, signable

SIGNERS = [CryptoSigner.generate_ed25519() for _ in range(2)]
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
# What no device has ever been called: the document is python-tuf's all the same.
ODD = st.text(max_size=8) | st.sampled_from(['"', "\\", "\\u0000", "\x00", "é", "\u2028", "😀"])
TIMES = st.datetimes(
    min_value=datetime(1970, 1, 2),  # noqa: DTZ001 - the zone is drawn beside it
    max_value=datetime(9000, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-7, minutes=30))]),
)
ZEROS = st.sampled_from([0.0, -0.0])
SECONDS = ZEROS | st.floats(0, 86400)
MODES = st.just(Mode()) | TIMES.map(lambda at: Mode(urgency=Urgency.TIME_FORCED, force_at=at))
WINDOWS = st.just(()) | st.integers(1, 600).map(
    lambda n: (MaintenanceWindow(cron="0 2 * * 1-5", minutes=n, timezone="Europe/Berlin"),)
)


@st.composite
def assignments(draw: st.DrawFn) -> Assignment:
    of_rollout: dict[str, Any] = {
        "rollout": new_id("rol"),
        "model": draw(NAMES),
        "version": draw(st.integers(1, 2**31 - 1)),
        "manifest_sha256": draw(st.sampled_from(["a" * 64, "0" * 64])),
        "probation": Probation(max_error_rate=draw(st.floats(0, 1))),
        "mode": draw(MODES),
        "windows": draw(WINDOWS),
        "max_deferral_seconds": draw(SECONDS),
        "jitter_seconds": draw(SECONDS),
    }
    return Assignment.model_validate(of_rollout | draw(of_device()))


@st.composite
def of_device(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "device": new_id("dev"),
        "device_class": draw(NAMES),
        "execution": new_id("exe"),
        "attempt": draw(st.integers(1, 2**40)),
        "variant": draw(NAMES),
    }


def by_tuf(one: Assignment, size: int, sequence: int, expires: datetime) -> bytes:
    """As it was made before there were forms."""
    path = desired_target(one.device, one.execution)
    custom = {"custom": signable(one.model_dump(mode="json"))}
    target = TargetFile(size, {"sha256": one.manifest_sha256}, path, custom)
    return sign(Targets(sequence, None, expires.astimezone(UTC), {path: target}), SIGNERS)


@settings(deadline=None)
@given(
    plan=assignments(),
    others=st.lists(of_device(), max_size=3),
    odd=st.fixed_dictionaries(
        {}, optional={"device": ODD, "device_class": ODD, "execution": ODD, "variant": ODD}
    ),
    model=st.none() | ODD,
    size=st.integers(0, 2**40),
    sequence=st.integers(1, 2**40),
    expires=TIMES,
)
def test_it_is_what_python_tuf_makes(
    plan: Assignment,
    others: list[dict[str, Any]],
    odd: dict[str, str],
    model: str | None,
    size: int,
    sequence: int,
    expires: datetime,
) -> None:
    signer = AssignmentSigner()
    # Not validated here: the forms rely on no rule of what names may be.
    plan = plan if model is None else plan.model_copy(update={"model": model})
    fleet = [plan, *(plan.model_copy(update=one) for one in others), plan.model_copy(update=odd)]
    for number, one in enumerate(fleet):
        made = signer.sign(one, size, sequence + number, expires, SIGNERS)
        assert made == by_tuf(one, size, sequence + number, expires)


@settings(deadline=None, max_examples=50)
@given(one=assignments(), sign_of_zero=ZEROS, size=st.integers(1, 2))
def test_rollouts_that_differ_share_no_form(
    one: Assignment, sign_of_zero: float, size: int
) -> None:
    signer, until = AssignmentSigner(), datetime(2030, 1, 1, tzinfo=UTC)
    other = one.model_copy(update={"jitter_seconds": sign_of_zero})
    for plan, length in ((one, 1), (other, size), (one, 2)):
        assert signer.sign(plan, length, 1, until, SIGNERS) == by_tuf(plan, length, 1, until)


def test_a_sequence_below_one_is_refused_as_by_python_tuf() -> None:
    with pytest.raises(ValueError, match="version"):
        AssignmentSigner().sign(
            Assignment.model_validate(
                {
                    "device": new_id("dev"),
                    "device_class": "default",
                    "execution": new_id("exe"),
                    "attempt": 1,
                    "rollout": new_id("rol"),
                    "model": "digits",
                    "version": 1,
                    "variant": "int8",
                    "manifest_sha256": "a" * 64,
                    "probation": Probation(),
                }
            ),
            1,
            0,
            datetime(2030, 1, 1, tzinfo=UTC),
            SIGNERS,
        )
