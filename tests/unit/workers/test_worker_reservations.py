"""Which runs of a training came before, by name."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.distributed.reservations import run_of, runs_before


@given(st.integers(1, 20), st.integers(0, 256))
def test_an_attempt_gives_back_what_each_one_before_it_reserved(attempt: int, trial: int) -> None:
    job = "job_06h04ajhdwtx13rx"
    before = list(runs_before(f"{job}-{attempt}", trial))
    assert before == [run_of(f"{job}-{n}", trial) for n in range(1, attempt)]
    assert run_of(f"{job}-{attempt}", trial) not in before


def test_a_training_outside_of_a_job_has_none_before_it() -> None:
    assert list(runs_before("alone-00ff", 0)) == []
