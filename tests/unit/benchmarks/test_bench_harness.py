from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import _harness as harness


def _side(name: str, order: list[str], values: list[float]) -> Callable[[], dict[str, float]]:
    left = iter(values)

    def measure() -> dict[str, float]:
        order.append(name)
        return {"time": next(left)}

    return measure


def test_sides_take_turns_and_who_begins_changes() -> None:
    order: list[str] = []
    found = harness.alternate(
        _side("ours", order, [3, 1, 2]),
        _side("baseline", order, [4, 8, 6]),
        rounds=3,
        units={"time": "s"},
    )
    assert order == ["ours", "baseline", "baseline", "ours", "ours", "baseline"]
    assert found["time"].summary() == {
        "ours": 2, "baseline": 6, "ratio": pytest.approx(1 / 3), "unit": "s", "rounds": 3,
    }  # fmt: skip


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
def test_a_useless_value_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="no usable 'time'"):
        harness.alternate(
            lambda: {"time": value}, lambda: {"time": 1.0}, rounds=1, units={"time": "s"}
        )


def test_a_missing_figure_is_refused() -> None:
    with pytest.raises(ValueError, match="no usable 'size'"):
        harness.alternate(
            lambda: {"time": 1.0}, lambda: {"size": 1.0}, rounds=1, units={"size": "B"}
        )


def test_the_command_writes_the_form_that_readers_rely_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[harness.Options] = []

    def run(options: harness.Options) -> harness.Report:
        asked.append(options)
        figure = harness.Figure("ms", (1.0, 3.0), (4.0, 4.0))
        return harness.Report({"latency": figure}, {"note": "x"})

    out = tmp_path / "deep" / "x.json"
    monkeypatch.setattr("sys.argv", ["bench", "--quick", "--json", str(out)])
    harness.main(run, what="this against that", rounds=5)
    assert asked == [harness.Options(quick=True, rounds=1)]
    written = json.loads(out.read_text())
    assert written["latency"] == {
        "ours": 2.0, "baseline": 4.0, "ratio": 0.5, "unit": "ms", "rounds": 2,
    }  # fmt: skip
    assert written["details"] == {"note": "x"}
    assert {"cpu", "cores", "commit", "versions", "load"} <= written["environment"].keys()
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "this against that"
    assert shown[3].split() == ["latency", "2", "(1-3)", "4", "(4-4)", "0.5", "ms", "2"]


def test_rounds_below_one_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "--rounds", "0"])
    with pytest.raises(SystemExit) as stopped:
        harness.main(lambda _options: harness.Report({}), what="x", rounds=3)
    assert stopped.value.code == 2
