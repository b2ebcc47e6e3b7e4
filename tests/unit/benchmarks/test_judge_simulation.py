"""The simulation judges many waves by arrays: exactly as the server judges one."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks._judge_fleet import LOOKS, Effect, Waves, figures
from benchmarks._judge_rules import Pair, judged, mann_whitney, thresholds
from benchmarks.judge import GATES, wilson
from orchestrator.domain.judging.figures import Cohorts
from orchestrator.domain.judging.verdict import judge_telemetry

WAVES = 25


def drawn(effect: Effect, devices: int = 24) -> list[Pair]:
    rng = np.random.default_rng(1)
    pairs = []
    for each in (effect, Effect()):
        waves = Waves(rng, WAVES)
        pairs.append(Pair(waves.side(devices, each), waves.side(devices, None)))
    return pairs


@pytest.mark.parametrize("effect", [Effect(), Effect(wrong=0.05), Effect(errors=0.03)])
def test_arrays_and_the_judge_say_the_same_of_every_wave(effect):
    pairs = drawn(effect)
    seen = set()
    for look in range(len(LOOKS)):
        last = look == len(LOOKS) - 1
        harm, harmless = judged(pairs, GATES, look, last=last)
        for wave in range(WAVES):
            sides = [
                [
                    device
                    for number, pair in enumerate(pairs)
                    for device in figures(getattr(pair, name), wave, look, f"k{number}", name)
                ]
                for name in ("treated", "control")
            ]
            found = judge_telemetry(
                Cohorts(tuple(sides[0]), tuple(sides[1])), GATES, look=look + 1, last=last
            )
            said = (any(e.ok is False for e in found), all(e.ok is True for e in found))
            assert said == (harm[wave], harmless[wave]), (look, wave)
            seen.add(said)
    assert len(seen) > 1, "waves that all end alike would show nothing"


def test_what_others_do_stops_good_versions_and_finds_bad_ones():
    for rule in (thresholds, mann_whitney):
        assert rule(drawn(Effect(wrong=0.3))).aborted.all()
        assert rule(drawn(Effect())).aborted.mean() > 0.2


def test_the_interval_of_a_share_is_wilsons():
    assert wilson(0, 100) == pytest.approx((0, 0.037), abs=5e-4)
    assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
