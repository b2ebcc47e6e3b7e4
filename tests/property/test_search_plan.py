"""The search under every course of events: a world is drawn, and the plan explores it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from schemas.budget import Budget
from schemas.optimize import Optimize
from schemas.paired import paired
from workers.optimization.point import Point
from workers.optimization.searching.budgets import (
    Figures,
    Known,
    accuracy_fault,
    budget_fault,
    budgets_of,
    fault,
    settling,
)
from workers.optimization.searching.front import EVERY, MOST_KEPT, dominates, in_order, select
from workers.optimization.searching.plan import Done, Profile, Rules, Scan, State, Try, next_step


@dataclass(frozen=True)
class World:
    """What each point would give: drawn once per point, so that it does not change."""

    seed: int
    samples: int
    layers: int

    def known(self, point: Point) -> Known:
        random = self._random(point)
        if point != Point() and random.random() < 0.1:
            return Known(point, failed="it cannot be made")
        lost = 0 if point == Point() else int(random.random() ** 3 * self.samples * 0.2)
        won = int(random.random() * 0.02 * (self.samples - lost))
        small = (1 - point.pruned) ** 2 * (0.3 if point.quantized else 1.0)
        figures = Figures(
            size=int(1e6 * small * (0.8 + 0.4 * random.random())),
            compressed=int(9e5 * small),
            cpu_ms=10 * small * (0.5 + random.random()),
            p50_ms=10 * small,
            rss_mb=None if random.random() < 0.1 else 20 * small,
        )
        test = paired(self.samples, lost, won, 0.95)
        return Known(point, 0.95 - test.drop, test, figures)

    def nodes(self, point: Point) -> tuple[tuple[str, ...], ...]:
        order = list(range(self.layers))
        self._random(point).shuffle(order)
        return tuple((f"conv{i}", f"relu{i}") for i in order)

    def slow(self, point: Point) -> tuple[str, ...]:
        random = self._random(point)
        return ("conv0",) if self.layers and random.random() < 0.5 else ()

    def _random(self, point: Point) -> Random:
        return Random(f"{self.seed} {point}")  # noqa: S311 - a drawn world, no secret


shares = st.lists(st.sampled_from([0.25, 0.5, 0.75]), max_size=3, unique=True)
limit = st.none() | st.floats(0.001, 2)
budgets = st.builds(
    Budget,
    max_latency_ms=st.none() | st.floats(0.1, 12),
    max_size_mb=limit,
    max_rss_mb=st.none() | st.floats(0.5, 25),
)
wishes = st.builds(
    Optimize,
    int8=st.booleans(),
    fp16=st.booleans(),
    prune=shares.map(tuple),
    qat_epochs=st.integers(0, 2),
    max_accuracy_drop=st.sampled_from([0.0, 0.01, 0.05, 0.2]),
    max_trials=st.integers(1, 40),
    budget=st.just(Budget()) | budgets,
    classes=st.dictionaries(st.sampled_from(["camera", "server", "phone"]), budgets, max_size=3),
)
rules_of = st.builds(
    Rules,
    optimize=wishes,
    schemes=st.sampled_from(
        [("u8s8-7bit",), ("u8s8-7bit", "u8s8"), ("s8s8",), ("dynamic", "u8s8-7bit")]
    ),
    prune=st.booleans(),
    qat=st.booleans(),
).map(lambda r: replace(r, ladder="u8s8-7bit" if "u8s8-7bit" in r.schemes else r.schemes[0]))
worlds = st.builds(
    World,
    seed=st.integers(0, 2**31),
    samples=st.sampled_from([20, 400, 5000]),
    layers=st.integers(0, 60),
)


def explored(rules: Rules, world: World) -> tuple[State, Done]:
    trials: dict = {}
    scans: dict = {}
    slow: dict = {}
    for _ in range(1000):
        step = next_step(rules, State(trials, scans, slow))
        match step:
            case Done():
                return State(trials, scans, slow), step
            case Try(points):
                assert points
                assert len(set(points)) == len(points)
                assert not set(points) & set(trials), "nothing is tried twice"
                trials |= {p: world.known(p) for p in points}
            case Scan(point):
                assert point not in scans
                scans[point] = world.nodes(point)
            case Profile(point):
                assert point not in slow
                slow[point] = world.slow(point)
        assert len(trials) <= rules.optimize.max_trials
    msg = "the search does not end"
    raise AssertionError(msg)


@given(rules_of, worlds)
def test_a_search_ends_and_keeps_only_what_is_good(rules, world) -> None:
    state, _ = explored(rules, world)
    optimize = rules.optimize
    chosen = select(state.trials, optimize)
    reference = state.trials[Point()].figures
    kept = {k.point for k in chosen.kept}

    assert Point() in kept
    assert len(kept) <= MOST_KEPT
    assert len({p.id for p in state.trials}) == len(state.trials), "ids tell trials apart"
    for known in chosen.kept:
        assert fault(known, reference, optimize) is None
        if known.point != Point():
            assert known.paired.high <= optimize.max_accuracy_drop
            smaller = known.figures.size < reference.size
            assert smaller or known.figures.cpu_ms <= reference.cpu_ms
            assert budget_fault(known.figures, optimize.budget) is None
    assert set(chosen.rejected) == set(state.trials) - kept
    assert all(reason and "\n" not in reason for reason in chosen.rejected.values())


@given(rules_of, worlds)
def test_the_front_is_one_and_classes_get_what_fits(rules, world) -> None:
    state, _ = explored(rules, world)
    chosen = select(state.trials, rules.optimize)
    reference = state.trials[Point()].figures
    sound = [k for k in state.trials.values() if fault(k, reference, rules.optimize) is None]
    front = [k for k in chosen.kept if k.point.id in chosen.front]
    assert not [1 for a in front for b in sound if dominates(b, a)]
    for known in sound:
        if known.point.id not in chosen.front:
            assert any(dominates(other, known) for other in sound)
    for name, budget in budgets_of(rules.optimize).items():
        fits = [k for k in sound if budget_fault(k.figures, budget) is None]
        served = [k for k in chosen.kept if budget_fault(k.figures, budget) is None]
        assert bool(fits) == bool(served)
        assert (name in chosen.unmet) == (not fits and budget != Budget())
    of_all = rules.optimize.budget
    fits = [k for k in sound if k.figures and budget_fault(k.figures, of_all) is None]
    assert (EVERY in chosen.unmet) == (not fits and of_all != Budget())


@given(rules_of, worlds)
def test_the_same_world_gives_the_same_search(rules, world) -> None:
    assert explored(rules, world) == explored(rules, world)


@given(rules_of, worlds)
def test_what_was_not_asked_for_is_not_tried(rules, world) -> None:
    state, done = explored(rules, world)
    optimize = rules.optimize
    for point in state.trials:
        assert not point.quantized or optimize.int8
        assert point.precision != "fp16" or optimize.fp16
        assert not point.pruned or (rules.prune and optimize.prune)
        assert point.scheme != "qat" or (rules.qat and optimize.qat_epochs)
    if optimize.int8 and not done.exhausted:
        assert any(p.quantized for p in state.trials)


@given(worlds, st.lists(st.floats(0.01, 100), min_size=1, max_size=8))
def test_what_is_slower_than_fp32_comes_after_it(world, times) -> None:
    reference = world.known(Point())
    found = [reference] + [
        Known(Point(i / 100, "int8", "s8s8"), figures=Figures(1, 1, t, t))
        for i, t in enumerate(times, 1)
    ]
    order = in_order(found, reference.figures)
    at = order.index(reference)
    assert all(k.figures.cpu_ms <= reference.figures.cpu_ms for k in order[:at])
    assert all(k.figures.cpu_ms > reference.figures.cpu_ms for k in order[at + 1 :])
    assert order[:at] == sorted(order[:at], key=lambda k: k.figures.cpu_ms)


@given(
    st.integers(1, 3000),
    st.integers(0, 50),
    st.integers(0, 50),
    st.sampled_from([0.005, 0.02, 0.1]),
)
def test_the_reason_tells_how_many_samples_would_settle_it(n, lost, won, most) -> None:
    lost, won = min(lost, n), min(won, n - min(lost, n))
    found = paired(n, lost, won)
    reason = accuracy_fault(found, most)
    assert (reason is None) == (found.high <= most)
    if reason is None:
        return
    assert f"n={n}" in reason
    assert f"{found.high:.4f}" in reason
    needed = settling(found, most)
    if found.drop >= most:
        assert "settle" not in reason
    elif needed is not None:
        assert f"about {needed} samples" in reason
        assert needed >= n
        again = paired(needed, round(lost * needed / n), round(won * needed / n))
        assert again.high <= most
