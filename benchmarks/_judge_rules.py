"""The judge over many simulated waves at once, and what others do in its place.

``ours`` computes by arrays what ``judge_telemetry`` does for one wave, with its own functions for
means, limits and decisions; a test holds the two to each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from benchmarks._judge_fleet import LOOKS, Counts, Floats, Ints, Side
from orchestrator.domain.judging.compare import exact_high
from orchestrator.domain.judging.counting import Counting
from orchestrator.domain.judging.decide import Cohort, decide
from orchestrator.domain.judging.metrics import ROUNDED
from orchestrator.domain.judging.spending import spent
from schemas.gates import MEANINGFUL, RATIOS, Gates, Metric
from schemas.telemetry import GAMMA

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Pair:
    """The two cohorts of a class of devices."""

    treated: Side
    control: Side


@dataclass(frozen=True, slots=True)
class Ends:
    """Of each wave, whether it was promoted or aborted; else it was inconclusive."""

    promoted: Bools
    aborted: Bools


def ours(pairs: Sequence[Pair], gates: Gates) -> Ends:
    """Waves judged at each look, until harm is shown, or that there is none.

    Gates that are not required let a wave pass at the last look if none has shown harm.
    """
    required = any(gate.required for gate in gates.telemetry)
    waves = pairs[0].treated.silent.shape[0]
    promoted, aborted = np.zeros(waves, bool), np.zeros(waves, bool)
    for look in range(len(LOOKS)):
        last = look == len(LOOKS) - 1
        harm, harmless = judged(pairs, gates, look, last=last)
        open_ = ~(promoted | aborted)
        aborted |= open_ & harm
        promoted |= open_ & ~harm & (harmless | (last and not required))
    return Ends(promoted, aborted)


def judged(pairs: Sequence[Pair], gates: Gates, look: int, *, last: bool) -> tuple[Bools, Bools]:
    """Of each wave at one look: whether any gate shows harm, and whether all show none."""
    alpha = spent(gates.alpha, look + 1, last=last)
    cohorts = [
        (gate, pair, _cohorts(gate.metric, pair, gates.min_inferences, look))
        for gate in gates.telemetry
        for pair in pairs
    ]
    usable = [_enough(found, gates.min_devices) for _, _, found in cohorts]
    harm_alpha = alpha / np.maximum(1, np.sum(usable, axis=0))
    harm, harmless = np.zeros(usable[0].shape, bool), np.ones(usable[0].shape, bool)
    for (gate, pair, found), enough in zip(cohorts, usable, strict=True):
        if gate.metric is Metric.SILENCE:
            bad, good = _silence(pair, gate.max_worse, harm_alpha, gates.alpha)
        else:
            worse = math.log(gate.max_worse) if gate.metric in RATIOS else gate.max_worse
            shown = decide(found[0], found[1], worse, harm=harm_alpha, harmless=alpha)
            bad, good = shown.harm, shown.harmless
        harm |= enough & bad
        harmless &= enough & good
    return harm, harmless


def _enough(found: tuple[Cohort, Cohort], least: int) -> Bools:
    one, other = (np.isfinite(cohort.values).sum(axis=-1) for cohort in found)
    enough: Bools = (one >= least) & (other >= least)
    return enough


def _cohorts(metric: Metric, pair: Pair, least: int, look: int) -> tuple[Cohort, Cohort]:
    sides = (pair.treated, pair.control)
    if metric is Metric.SILENCE:
        silent = [side.silent.astype(np.float64) for side in sides]
        return Cohort(silent[0], silent[0] * 0), Cohort(silent[1], silent[1] * 0)
    one, other = (_changes(metric, side.pre, side.post[look], least) for side in sides)
    return one, other


def _changes(metric: Metric, pre: Counts, post: Counts, least: int) -> Cohort:
    match metric:
        case Metric.ERROR_RATE:
            return _rates(pre.errors, pre.n, post.errors, post.n, least)
        case Metric.ACCURACY:
            return _rates(pre.wrong, pre.labelled, post.wrong, post.labelled, least)
        case Metric.LOW_CONFIDENCE:
            return _rates(pre.unsure, pre.n, post.unsure, post.n, least)
        case Metric.LATENCY_P95:
            there = (pre.n >= least) & (post.n >= least)
            value = (post.p95 - pre.p95).astype(np.float64) * math.log(GAMMA)
            return _counted(there, value, np.full(value.shape, 2 * ROUNDED))
        case Metric.CLASS_MIX:
            return _mixes(pre.classes, post.classes, least)
        case _:
            msg = f"{metric} is not simulated"
            raise ValueError(msg)


def _counted(there: Bools, value: Floats, noise: Floats) -> Cohort:
    return Cohort(np.where(there, value, np.nan), np.where(there, noise, np.nan))


def _rates(x: Ints, n: Ints, y: Ints, m: Ints, least: int) -> Cohort:
    there = (n >= least) & (m >= least)
    before, after = x / np.maximum(n, 1), y / np.maximum(m, 1)
    per = 1 / np.maximum(n, 1) + 1 / np.maximum(m, 1)
    per = np.where(there, per, np.nan)
    devices = np.maximum(there.sum(axis=-1), 1)
    counting = Counting(per, np.where(there, before, 0).sum(axis=-1) / devices, 0.5)
    mean = np.where(there, after - before, 0).sum(axis=-1) / devices
    return Cohort(np.where(there, after - before, np.nan), counting.noise(mean), counting)


def _mixes(pre: Ints, post: Ints, least: int) -> Cohort:
    n, m = pre.sum(axis=-1), post.sum(axis=-1)
    there = (n >= least) & (m >= least)
    per = 1 / np.maximum(n, 1) + 1 / np.maximum(m, 1)
    before, after = pre / np.maximum(n, 1)[..., None], post / np.maximum(m, 1)[..., None]
    share = (before + after) / 2
    luck = np.sqrt(share * (1 - share) * (per * 2 / math.pi)[..., None]).sum(axis=-1) / 2
    value = np.abs(after - before).sum(axis=-1) / 2 - luck
    return _counted(there, value, per * 0.25 * (1 - 2 / math.pi))


def _silence(pair: Pair, worse: float, harm: Floats, alpha: float) -> tuple[Bools, Bools]:
    n, m = pair.treated.silent.shape[1], pair.control.silent.shape[1]
    one, other = pair.treated.silent.sum(axis=-1), pair.control.silent.sum(axis=-1)
    total = one + other
    # The tail of the hypergeometric distribution: as many or more of the silent in the wave.
    counts = np.arange(n + 1)
    logs = special.gammaln(n + 1) - special.gammaln(counts + 1) - special.gammaln(n - counts + 1)
    rest = total[:, None] - counts
    can = (rest >= 0) & (rest <= m) & (counts >= one[:, None])
    rest = np.clip(rest, 0, m)
    logs = logs + special.gammaln(m + 1) - special.gammaln(rest + 1) - special.gammaln(m - rest + 1)
    every = n + m
    of = (
        special.gammaln(every + 1) - special.gammaln(total + 1) - special.gammaln(every - total + 1)
    )
    chance = np.where(can, np.exp(logs - of[:, None]), 0).sum(axis=-1)
    bad = (chance <= harm) & (one / n - other / m >= MEANINGFUL * worse)
    good = exact_high(one, np.full(one.shape, n), alpha) < worse
    return bad, good & ~bad


def thresholds(pairs: Sequence[Pair], relative: float = 0.05) -> Ends:
    """What a rule on a dashboard does: aborts where a total is that much worse than the control's.

    Totals are over all inferences of a class; it promotes what was not aborted by the last look.
    """
    bad = np.zeros(pairs[0].treated.silent.shape[0], bool)
    for pair in pairs:
        for look in range(len(LOOKS)):
            one, other = pair.treated.post[look], pair.control.post[look]
            for x, n, y, m in _totals(one, other):
                bad |= (x / n) > (1 + relative) * (y / m)
            right = [1 - c.wrong.sum(-1) / np.maximum(c.labelled.sum(-1), 1) for c in (one, other)]
            bad |= right[0] < (1 - relative) * right[1]
            bad |= _pooled_p95(one) > _pooled_p95(other) + math.log(1 + relative)
    return Ends(~bad, bad)


def _totals(one: Counts, other: Counts) -> list[tuple[Floats, Floats, Floats, Floats]]:
    found = []
    for name in ("errors", "unsure"):
        x, y = getattr(one, name).sum(-1), getattr(other, name).sum(-1)
        found.append((x, np.maximum(one.n.sum(-1), 1), y, np.maximum(other.n.sum(-1), 1)))
    return found


def _pooled_p95(counts: Counts) -> Floats:
    """The mean of the devices' own, by their inferences: near enough to the pooled one."""
    total = np.maximum(counts.n.sum(-1), 1)
    mean: Floats = (counts.p95 * math.log(GAMMA) * counts.n).sum(-1) / total
    return mean


def mann_whitney(pairs: Sequence[Pair], alpha: float = 0.01) -> Ends:
    """As canary analysis on metrics does: Mann-Whitney's U of all inferences of the two cohorts.

    One-sided at 1 %, which is Kayenta's 98 % confidence, each metric for itself. Of
    yes-or-no values U is the comparison of two shares; of latency its mean is that of the pairs
    of devices, each with its own lognormal, and its variance what U takes for granted: that of
    independent inferences.
    """
    z = -float(special.ndtri(alpha))
    bad = np.zeros(pairs[0].treated.silent.shape[0], bool)
    for pair in pairs:
        ahead = _ahead(pair)
        for look in range(len(LOOKS)):
            one, other = pair.treated.post[look], pair.control.post[look]
            for x, n, y, m in (*_totals(one, other), _wrong(one, other)):
                both = (x + y) / (n + m)
                error = np.sqrt(np.maximum(both * (1 - both) * (1 / n + 1 / m), 1e-300))
                bad |= (x / n - y / m) / error > z
            bad |= _u(ahead, one.n, other.n) > z
    return Ends(~bad, bad)


def _wrong(one: Counts, other: Counts) -> tuple[Floats, Floats, Floats, Floats]:
    n, m = (np.maximum(c.labelled.sum(-1), 1) for c in (one, other))
    return one.wrong.sum(-1), n, other.wrong.sum(-1), m


def _ahead(pair: Pair) -> Floats:
    """The chance that an inference of one device takes longer than one of another."""
    one, other = pair.treated.post[0].level, pair.control.post[0].level
    apart = (one[:, :, None] - other[:, None, :]) / (0.35 * math.sqrt(2))
    chance: Floats = special.ndtr(apart)
    return chance


def _u(ahead: Floats, n: Ints, m: Ints) -> Floats:
    total, others = np.maximum(n.sum(-1), 1), np.maximum(m.sum(-1), 1)
    share = np.einsum("wij,wi,wj->w", ahead, n / total[:, None], m / others[:, None])
    found: Floats = (share - 0.5) / np.sqrt((total + others + 1) / (12 * total * others))
    return found
