from __future__ import annotations

import pytest

from edge_client.energy import PowerSensor, Rapl, estimated, find_meter, metered


def write(path, text) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


@pytest.fixture
def powercap(tmp_path):
    root = tmp_path / "powercap"
    for folder, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core")):
        write(root / folder / "name", name)
        write(root / folder / "energy_uj", 500)
        write(root / folder / "max_energy_range_uj", 1000)
    return root


@pytest.fixture
def hwmon(tmp_path):
    root = tmp_path / "hwmon"
    write(root / "hwmon0" / "name", "coretemp")
    write(root / "hwmon0" / "power1_input", 77)
    write(root / "hwmon1" / "name", "ina226")
    write(root / "hwmon1" / "power1_input", 2_000_000)
    return root


def test_the_processors_meter_comes_first_and_only_packages_count(powercap, hwmon, tmp_path):
    meter = find_meter(powercap, hwmon)
    assert isinstance(meter, Rapl)
    assert [folder.name for folder, _ in meter.zones] == ["intel-rapl:0"]
    other = find_meter(tmp_path / "none", hwmon)
    assert isinstance(other, PowerSensor)
    assert other.path.parent.name == "hwmon1"
    assert find_meter(tmp_path / "none", tmp_path / "none") is None


def test_a_counter_that_begins_anew_between_samples_is_added_up(powercap):
    meter = find_meter(powercap)
    counter = powercap / "intel-rapl:0" / "energy_uj"
    readings, time = iter([900, 300, 800]), [0.0]

    def run() -> None:
        time[0] += 1.0
        write(counter, next(readings))

    found = metered(meter, run, seconds=2.5, clock=lambda: time[0])
    # 400 up to 900, 400 more over the end at 1000 to 300, then 500: in three runs.
    assert found.millijoules == pytest.approx(1300 / 3 / 1e3)
    assert (found.method, found.watts, found.estimated) == ("rapl", None, False)


def test_a_sensor_of_power_is_integrated_over_time(hwmon):
    path, time = hwmon / "hwmon1" / "power1_input", [0.0]
    meter = PowerSensor(path, clock=lambda: time[0])
    watts = iter([4, 4, 6])

    def run() -> None:
        time[0] += 0.5
        write(path, next(watts) * 1_000_000)

    found = metered(meter, run, seconds=1.2, clock=lambda: time[0])
    # 0.5 s at the mean of 2 and 4 W, 0.5 s at 4 W, 0.5 s at the mean of 4 and 6 W.
    assert found.millijoules == pytest.approx((1.5 + 2.0 + 2.5) / 3 * 1e3)
    assert found.method == "meter"


def test_a_meter_that_goes_away_is_no_failure(hwmon):
    path = hwmon / "hwmon1" / "power1_input"
    assert metered(PowerSensor(path), path.unlink, seconds=0.0) is None


def test_an_estimate_says_that_it_is_one():
    found = estimated(4.0)
    assert found.estimated
    assert found.millijoules == pytest.approx(4.0 * found.watts)
