"""One small round of each benchmark: it runs, and says what it set out to measure."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("mosquitto"),
]

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SLOW = {"loop", "optimize", "rollout", "training", "transfer"}
"""Take a minute or more; what they measure is tried by tests of its own."""

NAMES = [
    pytest.param(path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])
    for path in sorted(BENCHMARKS.glob("[!_]*.py"))
]
FIGURES = {
    "agent": {
        "agent_rss",
        "agent_idle_cpu_percent",
        "agent_connected",
        "agent_first_answer",
        "swap_p99",
    },
    "batching": {"batching_32_throughput", "batching_32_p99", "batch_rows"},
    "engine": {
        "tick_100k_s",
        "pg_tick_100k_s",
        "offer_statements",
        "steady_statements",
        "settle_statements",
        "abort_statements",
    },
    "inbox": {"births", "heartbeats", "reports", "windows"},
    "inference": {"predict_tiny_p50", "predict_small_p50", "predict_mobilenet_p50"},
    "judge": {"false_abort", "promoted_5pt"},
    "rollout": {"offers_per_s", "stop_to_last_told_s"},
    "loop": {"submit_to_serving", "submit_to_registered", "start_to_registered"},
    "optimize": {"digits_latency_b1", "digits_size", "digits_accuracy"},
    "patches": {"all_fp32_bytes", "all_int8_bytes"},
    "server": {"server_vs_fastapi", "server_cpu_vs_fastapi"},
    "telemetry": {"ingest_windows_per_s", "ingest_cpu_us"},
    "transfer": {
        "one_device_mtls_vs_mosquitto",
        "one_device_vs_stop_and_wait",
        "rtt50_vs_stop_and_wait",
    },
    "training": {"samples_per_s", "start_to_first_step", "submit_to_first_step"},
}


@pytest.mark.parametrize("name", NAMES)
def test_a_quick_round_gives_every_figure_and_its_baseline(tmp_path: Path, name: str) -> None:
    out = tmp_path / "figures.json"
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", str(out)],
        cwd=BENCHMARKS.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        shown, said = process.communicate(timeout=800)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # the platform that it started, too
        raise
    assert process.returncode == 0, said
    found = json.loads(out.read_text())
    assert FIGURES[name] <= found.keys()
    for figure in found.keys() - {"details", "environment"}:
        assert 0 < found[figure]["ratio"] < math.inf, figure
        assert figure in shown
