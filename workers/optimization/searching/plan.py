"""What to try next, from what is known: pure, so that every course of a search can be tested.

The order of the rungs is by what they cost: forms of a net that is there, then a scan for the
layers that quantization damages, then nets that must be trained. Nothing is tried that the
figures so far cannot gain by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from schemas.optimize import Optimize
from workers.optimization.point import Point, SchemeName
from workers.optimization.searching.budgets import Known, accuracy_fault, hopeless
from workers.optimization.searching.front import portable, select

LADDER = (1, 3, 6, 10, 20, 40)
"""How many of the worst layers stay in float, one trial after the other."""

SHARE_STEPS = 16
"""Shares that the search finds by itself are multiples of 1/16."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be tried.

    schemes: of quantization, tried in turn on each net until one is accurate enough.
    ladder: the one with which layers are left in float; None: none.
    prune: whether nets can be pruned here; qat: whether they can be trained quantized.
    """

    optimize: Optimize
    schemes: tuple[SchemeName, ...]
    ladder: SchemeName | None = None
    prune: bool = False
    qat: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """What is known so far.

    trials: by point. scans: the layers of a quantized form, by how much they damage, the
    worst first, each as its operators' names. slow: operators that run slower quantized
    than in float, so much that leaving them is worth a trial.
    """

    trials: Mapping[Point, Known] = field(default_factory=dict)
    scans: Mapping[Point, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    slow: Mapping[Point, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Try:
    """Make, measure and judge these; those of one step do not depend on each other."""

    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """Find out which layers of this form do the damage."""

    point: Point


@dataclass(frozen=True, slots=True)
class Profile:
    """Find out which operators of this form run slower than in float."""

    point: Point


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing is left to try. exhausted: because of ``max_trials``."""

    exhausted: bool = False


Step = Try | Scan | Profile | Done


def next_step(rules: Rules, state: State) -> Step:
    """The next step of a search.

    Each tried point must be in ``state.trials`` at the next call, whatever came of it, and
    likewise scans and profiles: then the search ends within ``max_trials``.
    """
    left = rules.optimize.max_trials - len(state.trials)
    for rung in _RUNGS:
        step = rung(rules, state)
        if step is None:
            continue
        if left <= 0:
            return Done(exhausted=True)
        return Try(step.points[:left]) if isinstance(step, Try) else step
    return Done()


def accurate(rules: Rules, known: Known | None) -> bool:
    """Whether a trial passed the test of non-inferiority."""
    if known is None or known.failed is not None:
        return False
    if known.point == Point():
        return True
    margin = rules.optimize.max_accuracy_drop
    return known.paired is not None and accuracy_fault(known.paired, margin) is None


def _reference(_: Rules, state: State) -> Step | None:
    return None if Point() in state.trials else Try((Point(),))


def _pruned(rules: Rules, state: State) -> Step | None:
    shares = dict.fromkeys(rules.optimize.prune) if rules.prune else {}
    return _untried(state, [Point(pruned=share) for share in shares])


def _quantized(rules: Rules, state: State) -> Step | None:
    """Each net with the first scheme, and the next one where that is not accurate enough."""
    if not rules.optimize.int8:
        return None
    points = []
    for share in _shares(rules, state):
        forms = [Point(share, "int8", scheme) for scheme in rules.schemes]
        for earlier, point in zip([None, *forms], forms, strict=False):
            if point in state.trials:
                continue
            if earlier is None or _missed(rules, state, earlier):
                points.append(point)
            break
    return _untried(state, points)


def _half(rules: Rules, state: State) -> Step | None:
    if not rules.optimize.fp16:
        return None
    return _untried(state, [Point(share, "fp16", "fp16") for share in _shares(rules, state)])


def _ladder(rules: Rules, state: State) -> Step | None:
    """Leave ever more of the worst layers in float, until it is accurate enough."""
    if rules.ladder is None or not rules.optimize.int8:
        return None
    for share in _shares(rules, state):
        base = Point(share, "int8", rules.ladder)
        tried = state.trials.get(base)
        if tried is None or _served(rules, state, share) or _too_few(rules, state):
            continue
        if base not in state.scans:
            return Scan(base)
        layers = state.scans[base]
        for count in (n for n in LADDER if n < len(layers)):
            point = base.keeping(tuple(name for layer in layers[:count] for name in layer))
            if point not in state.trials:
                return Try((point,))
    return None


def _faster(rules: Rules, state: State) -> Step | None:
    """Leave operators in float that run slower quantized."""
    if rules.ladder is None:
        return None
    found = [
        p
        for p, known in state.trials.items()
        if p.scheme == rules.ladder and accurate(rules, known) and not _from_profile(state, p)
    ]
    for point in found:
        if point not in state.slow:
            return Profile(point)
        more = tuple(n for n in state.slow[point] if n not in point.float_nodes)
        other = point.keeping((*point.float_nodes, *more))
        if more and other not in state.trials:
            return Try((other,))
    return None


def _deeper(rules: Rules, state: State) -> Step | None:
    """Where a class still finds nothing that fits: another share of channels."""
    if not rules.prune or not rules.optimize.prune or _too_few(rules, state):
        return None
    if not select(state.trials, rules.optimize).unmet:
        return None
    plain = {p.pruned: accurate(rules, k) for p, k in state.trials.items() if p == p.plain}
    low = max(share for share, good in plain.items() if good)
    high = min((share for share in plain if share > low), default=1.0)
    share = int((low + high) / 2 * SHARE_STEPS + 0.5) / SHARE_STEPS
    if not low < share < high:
        return None
    return _untried(state, [Point(pruned=share)])


def _trained(rules: Rules, state: State) -> Step | None:
    """The last rung: quantization in the loop, where no other quantized form is accurate."""
    if not rules.qat or not rules.optimize.int8 or not rules.optimize.qat_epochs:
        return None
    if _too_few(rules, state):
        return None
    missing = [share for share in _shares(rules, state) if not _served(rules, state, share)]
    return _untried(state, [Point(share, "int8", "qat") for share in missing])


_RUNGS: tuple[Callable[[Rules, State], Step | None], ...] = (
    _reference,
    _pruned,
    _quantized,
    _half,
    _ladder,
    _faster,
    _deeper,
    _trained,
)


def _untried(state: State, points: list[Point]) -> Try | None:
    left = tuple(point for point in points if point not in state.trials)
    return Try(left) if left else None


def _shares(rules: Rules, state: State) -> list[float]:
    """Of the nets that are accurate in FP32, the unpruned one first."""
    plain = [p for p, known in state.trials.items() if p == p.plain and accurate(rules, known)]
    return sorted(point.pruned for point in plain)


def _missed(rules: Rules, state: State, point: Point) -> bool:
    """Whether a form ran and was not accurate enough, though it could have been shown."""
    known = state.trials[point]
    if known.paired is None or _too_few(rules, state):
        return False
    return not accurate(rules, known)


def _too_few(rules: Rules, state: State) -> bool:
    """Whether so few samples cannot show any form to be accurate enough."""
    counts = [known.paired.n for known in state.trials.values() if known.paired is not None]
    return bool(counts) and hopeless(min(counts), rules.optimize)


def _served(rules: Rules, state: State, share: float) -> bool:
    """Whether a quantized form of this net is accurate, and runs on more than this machine."""
    return any(
        p.pruned == share and p.quantized and portable(p) and accurate(rules, known)
        for p, known in state.trials.items()
    )


def _from_profile(state: State, point: Point) -> bool:
    """Whether a form came of a profile: it is not profiled again."""
    return any(
        nodes and set(nodes) <= set(point.float_nodes) and source.pruned == point.pruned
        for source, nodes in state.slow.items()
        if source != point
    )
