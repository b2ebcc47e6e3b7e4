"""What the search says where a budget or the samples leave nothing to keep."""

from __future__ import annotations

import logging

import pytest

from schemas.budget import Budget
from schemas.optimize import Optimize
from schemas.paired import paired
from workers.optimization.point import Point
from workers.optimization.searching.budgets import Figures, Known, accuracy_fault, hopeless, too_few
from workers.optimization.searching.front import EVERY, select
from workers.optimization.searching.narrate import tell
from workers.optimization.searching.plan import Done, Rules, State, Try, next_step

INT8 = Point(precision="int8", scheme="u8s8")


def known(point: Point, size: int, n: int = 1000) -> Known:
    return Known(point, 0.9, paired(n, 0, 0), Figures(size, size, size / 1e5, size / 1e5, 5.0))


@pytest.mark.parametrize(
    ("lost", "won", "words"),
    [
        (2, 1, "accuracy on validation fell by 0.0333, with 95 % confidence by at most 0."),
        (1, 1, "accuracy on validation stayed the same, with 95 % confidence it fell by at most"),
        (0, 1, "accuracy on validation rose by 0.0333, with 95 % confidence it fell by at most"),
    ],
)
def test_a_reason_says_which_way_the_accuracy_went(lost: int, won: int, words: str) -> None:
    assert accuracy_fault(paired(30, lost, won), 0.01).startswith(words)


def test_too_few_samples_are_said_to_be_so_with_the_number_that_would_do() -> None:
    optimize = Optimize(max_accuracy_drop=0.02)
    text = too_few(30, optimize)
    assert text is not None
    assert text.startswith("30 validation samples are too few to show")
    enough = int(text.partition("about ")[2].partition(" ")[0])
    assert not hopeless(enough, optimize)
    assert hopeless(int(enough * 0.9), optimize)
    assert too_few(enough, optimize) is None


def test_no_margin_at_all_cannot_be_shown_by_any_number() -> None:
    assert "no number of them would do" in too_few(1000, Optimize(max_accuracy_drop=0.0))


def test_a_budget_of_all_that_nothing_fits_is_said_though_fp32_stays(caplog) -> None:
    optimize = Optimize(budget=Budget(max_size_mb=0.01))
    found = {Point(): known(Point(), 400_000), INT8: known(INT8, 100_000)}
    chosen = select(found, optimize)
    assert [one.point for one in chosen.kept] == [Point()]
    assert set(chosen.unmet) == {EVERY}
    with caplog.at_level(logging.WARNING, "workers"):
        tell(chosen, found)
    assert "no variant fits optimize.budget (fp32: its file has 0.4 MB, allowed are 0.01)" in (
        caplog.text
    )
    assert "fp32 stays all the same" in caplog.text


def test_a_budget_of_all_is_met_by_the_first_that_fits() -> None:
    optimize = Optimize(budget=Budget(max_size_mb=0.2))
    found = {Point(): known(Point(), 400_000), INT8: known(INT8, 100_000)}
    assert not select(found, optimize).unmet


@pytest.mark.parametrize(("n", "deeper"), [(1000, True), (30, False)])
def test_no_more_is_pruned_where_the_samples_could_not_show_it_to_be_good(n, deeper) -> None:
    """The budget alone asks for another share; too few samples forbid it."""
    optimize = Optimize(int8=False, prune=(0.5,), budget=Budget(max_size_mb=0.01))
    half = Point(pruned=0.5)
    trials = {Point(): known(Point(), 400_000, n), half: known(half, 100_000, n)}
    rules = Rules(optimize=optimize, schemes=(), ladder=None, prune=True, qat=False)
    step = next_step(rules, State(trials, {}, {}))
    assert isinstance(step, Try if deeper else Done)
