from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from argosy_fake_platform import NOW, job_view, rollout_view
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from orchestrator.cli import console
from orchestrator.cli.device_show import device_shape, show_device
from orchestrator.cli.job_screen import Training, sparkline
from orchestrator.cli.plan import parse_waves
from orchestrator.cli.rollout_shape import rollout_shape
from orchestrator.cli.rollout_tree import rollout_tree
from schemas.device import ActiveModel, DeviceState, DeviceView, Presence
from schemas.ids import new_id
from schemas.job import JobState, MetricPoint
from schemas.rollout import ExecState, RolloutState, WaveState
from schemas.rollout_view import ExecutionView, Progress, WaveView

ONE = ActiveModel(model="digits", version=1, variant="int8", sha256="a" * 64)
TWO = ONE.model_copy(update={"version": 2, "sha256": "b" * 64})
OTHER = ActiveModel(model="anomaly", version=3, variant="fp32", sha256="c" * 64)


def drawn(renderable: Any, width: int = 100) -> list[str]:
    screen = Console(width=width, record=True, file=None, force_terminal=False, quiet=False)
    with screen.capture() as capture:
        screen.print(renderable)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_training_shows_steps_bar_and_figures() -> None:
    view = job_view(JobState.RUNNING, epoch=2, started_at=NOW, best={"accuracy": 0.96}, attempt=2)
    points = [
        MetricPoint(epoch=i, at=NOW, values={"accuracy": 0.9 + i * 0.03, "loss": 0.5})
        for i in (1, 2)
    ]
    lines = drawn(Training(view, points))
    assert "RUNNING" in lines[0]
    assert "attempt 2" in lines[0]
    assert lines[1].split() == ["●", "train", "○", "export", "○", "optimize", "○", "register"]
    assert lines[2].endswith("epoch 2 of at most 5")
    assert lines[3].split("   ") == [
        "  accuracy 96.0 %", "loss 0.5", "best 96.0 %", "target 95.0 %",
    ]  # fmt: skip
    assert lines[4].strip() == "▁█  accuracy"


def test_a_finished_step_is_ticked() -> None:
    lines = drawn(Training(job_view(JobState.OPTIMIZING)))
    assert lines[1].split() == ["✓", "train", "✓", "export", "●", "optimize", "○", "register"]


def test_an_outage_is_shown_beside_what_is_known() -> None:
    training = Training(job_view(JobState.RUNNING), outage="no platform answers at x")
    assert drawn(training)[-1].strip() == "no platform answers at x: trying again"


def executions(count: int, state: ExecState, wave: int, **fields: Any) -> tuple[ExecutionView, ...]:
    return tuple(
        ExecutionView(
            id=new_id("exe"), device=new_id("dev"), wave=wave, attempt=1, state=state,
            updated_at=NOW, variant="int8", **fields,
        )
        for _ in range(count)
    )  # fmt: skip


def test_a_download_is_a_bar() -> None:
    half = executions(1, ExecState.DOWNLOADING, 0, bytes_done=500_000, bytes_total=1_000_000)
    wave = WaveView(index=0, state=WaveState.RUNNING, size=1, executions=half)
    line = drawn(rollout_tree(rollout_view(waves=(wave,)), room=None))[2]
    assert "DOWNLOADING" in line
    assert line.endswith("━" * 20 + " 500.0 kB of 1.0 MB")


def test_a_wave_that_nobody_is_there_for_says_what_it_waits_for() -> None:
    waits = "waits: none of its devices is there"
    states = {ExecState.SCHEDULED: waits, ExecState.OFFERED: ""}
    for state, words in states.items():
        many = executions(2, state, 0)
        wave = WaveView(index=0, state=WaveState.RUNNING, size=2, executions=many)
        line = drawn(rollout_tree(rollout_view(waves=(wave,)), room=None))[1]
        assert (waits in line) is bool(words)


def test_a_dynamic_rollout_tells_how_it_is_finished() -> None:
    view = rollout_view(waves=(WaveView(index=0, state=WaveState.PASSED, size=0),))
    spec = view.spec.model_copy(update={"dynamic": True})
    told = f"dynamic: whoever comes to match joins, until `argosy rollout finish {view.id}`"
    for state in (RolloutState.RUNNING, RolloutState.SUCCEEDED):
        shown = drawn(rollout_tree(view.model_copy(update={"spec": spec, "state": state}), room=9))
        assert any(told in line for line in shown) is (state is RolloutState.RUNNING)
    assert not any("dynamic" in line for line in drawn(rollout_tree(view, room=9)))


def test_a_rollback_is_listed_as_one() -> None:
    why = dict(rollout_shape().columns)["WHY"]
    assert why(rollout_view(takes_back=4)) == "takes digits@4 back"
    assert why(rollout_view()) == "-"


def test_an_end_that_has_no_cause_is_explained() -> None:
    ended = executions(1, ExecState.TIMED_OUT, 0, detail="no answer to the offer in 120 s")
    wave = WaveView(index=0, state=WaveState.RUNNING, size=1, executions=ended)
    line = drawn(rollout_tree(rollout_view(waves=(wave,)), room=None))[2]
    assert "no answer to the offer in 120 s" in line


@pytest.mark.parametrize("room", [12, 24, 60])
def test_a_large_fleet_fits_the_screen_and_shows_trouble_first(room: int) -> None:
    fine = executions(500, ExecState.SUCCEEDED, 0)
    broken = executions(2, ExecState.FAILED, 0)
    waiting = executions(3000, ExecState.SCHEDULED, 1)
    waves = (
        WaveView(index=0, state=WaveState.RUNNING, size=502, executions=(*fine, *broken)),
        WaveView(index=1, state=WaveState.PENDING, size=3000, executions=waiting),
    )
    view = rollout_view(RolloutState.RUNNING, waves=waves)
    lines = drawn(rollout_tree(view, room=room))
    assert len(lines) <= max(room, 12)
    assert sum("FAILED" in line for line in lines) == 2
    assert any("more:" in line and "SUCCEEDED" in line for line in lines)
    assert any("more:" in line and "SCHEDULED" in line for line in lines)
    assert len(drawn(rollout_tree(view, room=None))) == 3 + 3502


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0 s"), (4.25, "4.2 s"), (59.4, "59 s"), (60, "1m 00s"), (3599, "59m 59s"),
     (3600, "1h 00m"), (86400 * 3 + 7200, "3d 2h")],
)  # fmt: skip
def test_spans(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text
    if seconds >= 0:
        assert console.age(NOW, NOW + timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2_340_000, "2.3 MB")]
)
def test_sizes(count: int, text: str) -> None:
    assert console.size(count) == text


@given(st.text())
def test_clean_text_holds_nothing_a_terminal_obeys(text: str) -> None:
    cleaned = console.clean(text)
    assert all(c in "\t\n" or (ord(c) >= 32 and not 0x7F <= ord(c) <= 0x9F) for c in cleaned)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=50))
def test_a_sparkline_has_a_block_for_each_value(values: list[float]) -> None:
    drawn_blocks = sparkline(values)
    assert len(drawn_blocks) == len(values)
    assert set(drawn_blocks) <= set("▁▂▃▄▅▆▇█")


@given(st.lists(st.integers(1, 10**6) | st.floats(0.01, 100), min_size=1, max_size=50))
def test_waves_are_read_as_written(sizes: list[int | float]) -> None:
    text = ",".join(f"{s}%" if isinstance(s, float) else str(s) for s in sizes)
    found = [w.percent if w.count is None else w.count for w in parse_waves(text)]
    assert found == sizes


def test_a_wave_tells_of_all_its_devices_and_bytes_also_where_few_are_listed() -> None:
    listed = executions(2, ExecState.DOWNLOADING, 0, bytes_done=1, bytes_total=4)
    progress = Progress(
        states={ExecState.DOWNLOADING: 900, ExecState.SUCCEEDED: 2100},
        bytes_done=1_600_000,
        bytes_total=4_000_000,
        bytes_fetched=40_000,
    )
    wave = WaveView(
        index=0, state=WaveState.RUNNING, size=3000, executions=listed, progress=progress
    )
    lines = drawn(rollout_tree(rollout_view(waves=(wave,)), room=None), width=120)
    assert lines[1].endswith("2100/3000  1.6 MB of 4.0 MB, 40.0 kB fetched")
    assert lines[-1].endswith("and 2998 more: 2100 SUCCEEDED, 898 DOWNLOADING")


@pytest.mark.parametrize(
    ("fields", "serves", "more"),
    [
        ({"desired": ONE}, "digits@1 int8", []),
        ({"desired": TWO}, "digits@1 int8 → digits@2", ["should serve", "digits@2 int8"]),
        ({"desired": TWO, "rolled_back": True}, "digits@1 int8 put back", ["digits@2", "by hand"]),
        ({"desired": TWO, "drifted_at": NOW}, "digits@1 int8 drifted", ["never given"]),
        (
            {"desired": (ONE, OTHER), "active": (ONE, OTHER), "serving_since": {"digits": NOW}},
            "anomaly@3, digits@1",
            ["digits@1 int8, since", "anomaly@3 fp32"],
        ),
        ({"active": (), "desired": ()}, "-", []),
    ],
)
def test_what_a_device_serves_beside_what_it_should_is_told(
    fields: dict[str, Any], serves: str, more: list[str], capsys: Any
) -> None:
    view = DeviceView(
        id=new_id("dev"), device_class="pi", tags=(), state=DeviceState.ACTIVE,
        presence=Presence.ONLINE, certificate_expires_at=None, enrolled_at=NOW,
        **{"active": ONE, **fields},
    )  # fmt: skip
    shown = dict(device_shape().columns)["SERVES"](view)
    assert str(shown) == serves
    console.out.cache_clear()
    show_device(view)
    told = capsys.readouterr().out
    assert all(words in told for words in more)
    assert ("should serve" in told) == (view.active != view.desired)
