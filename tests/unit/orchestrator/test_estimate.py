"""What a plan would cost: figures that can be worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from orchestrator.domain.estimate import (
    DEVICE_RATE,
    Wave,
    estimate,
    offering_seconds,
    wave_seconds,
)
from schemas.pace import Growth, Pace
from schemas.rollout import RolloutSpec
from schemas.rollout_view import VariantShare

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
PLAIN = {"soak_seconds": 5, "min_inferences": 1, "telemetry": []}


def spec(**more):
    base = {"model": "digits", "version": 1, "gates": PLAIN, "probation": {"min_inferences": 10}}
    return RolloutSpec.model_validate(base | more)


def share(devices=1, **more):
    base = {"device_class": "cam", "variant": "int8", "devices": devices}
    return VariantShare.model_validate(base | more)


def test_one_device_fetches_proves_itself_and_soaks():
    wave = Wave(1, 2 * DEVICE_RATE)
    assert wave_seconds(spec(), wave, 0, 1e9) == 2 + 10 + 5
    assert wave_seconds(spec(shadow={"seconds": 30}), wave, 0, 1e9) == 2 + 40 + 5
    late = spec(gates=PLAIN | {"min_inferences": 50})
    assert wave_seconds(late, wave, 0, 1e9) == 2 + 10 + 40  # evidence takes longer than the soak


def test_the_line_of_the_server_holds_many_up():
    assert wave_seconds(spec(), Wave(100, 1000), 0, 1000) == 100 + 10 + 5


@pytest.mark.parametrize(
    ("pace", "seconds"),
    [
        (Pace(), 0),
        (Pace(per_minute=60), 99),
        (Pace(per_minute=60, growth=Growth(factor=2, after=1000)), 99),
        # 10 a minute until 10 succeeded: the tenth is offered after 54 s, and done 6 s later.
        (Pace(per_minute=10, growth=Growth(factor=2, after=10, max_per_minute=20)), 60 + 89 * 3),
    ],
)
def test_offers_take_as_long_as_their_rate_says(pace, seconds):
    assert offering_seconds(100, pace, 0, 6) == pytest.approx(seconds)


def test_a_rate_that_grew_in_earlier_waves_stays():
    pace = Pace(per_minute=10, growth=Growth(factor=2, after=10, max_per_minute=20))
    assert offering_seconds(11, pace, 500, 6) == pytest.approx(30)


def test_few_at_once_go_in_turns():
    turns = spec(pace={"concurrent": 3})
    assert wave_seconds(turns, Wave(7, 0), 0, 1e9) == 3 * 10 + 5


def test_a_window_is_waited_for_by_each_wave():
    daily = {"cron": "0 2 * * *", "minutes": 60}
    plan = spec(windows=[daily])
    cost = estimate(plan, [1, 1], [share(2, bytes=0)], NOW)
    # From noon to two, then the whole day: the second wave begins after the first one's verdict.
    assert cost.seconds == pytest.approx(14 * 3600 + 15 + 15)
    night = estimate(plan, [1], [share(bytes=2 * DEVICE_RATE)], NOW)
    assert night.seconds == pytest.approx(14 * 3600 + 10 + 5)  # fetched before, switched at two
    whole = spec(windows=[daily | {"covers": "all"}])
    assert estimate(whole, [1], [share(bytes=2 * DEVICE_RATE)], NOW).seconds == pytest.approx(
        14 * 3600 + 2 + 10 + 5
    )


def test_a_word_that_is_waited_for_and_more_than_a_life_have_no_time():
    staged = spec(mode={"urgency": "download_only"})
    assert estimate(staged, [1], [share()], NOW).seconds is None
    slow = spec(pace={"per_minute": 1e-9})
    assert estimate(slow, [100_000] * 50, [share(5_000_000)], NOW).seconds is None


def test_devices_that_get_nothing_or_have_it_cost_nothing():
    shares = [
        share(10, bytes=700, installed=3, offline=2),
        share(5, variant=None, reason="no memory"),
    ]
    cost = estimate(spec(), [1, 14], shares, NOW)
    assert (cost.devices, cost.offline, cost.incompatible) == (15, 2, 5)
    assert (cost.installed, cost.bytes) == (3, 700)
    none = estimate(spec(), [5], [share(5, installed=5)], NOW)
    assert (none.seconds, none.bytes) == (0, 0)
    assert estimate(spec(), [], [], NOW).seconds == 0


def test_waves_that_are_too_small_for_their_required_gates_are_named():
    def notes(required, least=5, classes=({"cam": 3}, {"cam": 9, "hub": 3}, {"cam": 18, "hub": 1})):
        gate = {"metric": "accuracy", "max_worse": 0.05, "required": required}
        gates = PLAIN | {"telemetry": [gate], "min_devices": least}
        sizes = [sum(one.values()) for one in classes]
        cost = estimate(spec(gates=gates), sizes, [share(34)], NOW, classes=classes)
        return [n for n in cost.notes if n.startswith("wave ")]

    first, second, third = notes(required=True)
    assert first.startswith("wave 1 has 3 of cam, and a class is compared from 5 on")
    assert second.startswith("wave 2 has 3 of hub, and"), "cameras count with those of wave 1"
    assert third.startswith("wave 3 has 1 of hub (4 with the waves before), and")
    assert notes(required=False) == []
    assert notes(required=True, least=3) == []
    assert notes(required=True, classes=({"cam": 12}, {"hub": 5})) == []


def test_more_devices_or_bytes_are_never_quicker():
    def seconds(devices, each):
        return estimate(spec(), [devices], [share(devices, bytes=devices * each)], NOW).seconds

    by_size = [seconds(100, each) for each in (0, 1, 10**6, 10**9)]
    by_count = [seconds(n, 10**6) for n in (1, 10, 1000, 10**5)]
    assert by_size == sorted(by_size)
    assert by_count == sorted(by_count)
