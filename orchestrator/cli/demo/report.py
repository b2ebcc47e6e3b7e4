"""What the demo found: figures of each device, times of each stage, what to try next."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from rich.text import Text

from orchestrator.cli import console
from orchestrator.cli.demo.fleet import RATE
from orchestrator.cli.demo.plan import Plan
from orchestrator.cli.output import Cell, print_table
from orchestrator.home import write_atomic
from schemas.job import JobView
from schemas.measure import Accuracy
from schemas.model import ModelVersionView
from schemas.rollout import RolloutState
from schemas.rollout_view import RolloutView
from schemas.telemetry import TelemetrySummary

_NOTED = 0.1
"""Seconds below which a stage's time is not worth a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All that a demo measured. registry: the chosen variant's figure."""

    plan: Plan
    stages: Mapping[str, float]
    preparation_seconds: float
    total_seconds: float
    job: JobView
    version: ModelVersionView
    rollout: RolloutView
    devices: Sequence[TelemetrySummary]
    registry: Accuracy


def say_report(result: Result) -> None:
    """Print the figures of each device and the times."""
    name = f"{result.version.model}@{result.version.version}"
    rows: list[list[Cell]] = [
        [
            Text(row.device or console.NONE),
            name,
            row.variant or _variant_of(result, row.device),
            f"{console.percent(row.accuracy)}",
            console.percent(result.registry.value),
            str(row.labelled),
            str(row.errors),
            console.ms(row.p50_ms),
            console.ms(row.p95_ms),
        ]
        for row in result.devices
    ]
    headings = ["DEVICE", "VERSION", "VARIANT", "ACCURACY", "REGISTRY", "LABELLED", "ERRORS",
                "P50", "P95"]  # fmt: skip
    if rows:
        print_table(headings, rows)
    missing = result.plan.devices - len(rows)
    if missing > 0:
        console.say(Text(f"{missing} devices have not reported enough yet", "yellow"))
    accuracy = result.registry
    interval = f"{100 * accuracy.low:.1f}-{100 * accuracy.high:.1f} %"
    console.say(
        f"registry: on the {accuracy.split} split, n={accuracy.n}, 95 % CI {interval};"
        " devices stream the same split",
        style="dim",
    )
    console.say(
        f"latency: of single inferences, {RATE} a second on each of {result.plan.devices} devices"
        f" that share {os.cpu_count()} cores; the registry's is back to back on one",
        style="dim",
    )
    times = [f"{name} {console.duration(s)}" for name, s in result.stages.items() if s >= _NOTED]
    total = console.duration(result.total_seconds)
    console.say(Text(f"\n{total} in all", "bold").append(f": {', '.join(times)}", "not bold dim"))


def _variant_of(result: Result, device: str | None) -> str:
    found = (e.variant for w in result.rollout.waves for e in w.executions if e.device == device)
    return next((v for v in found if v is not None), console.NONE)


def say_next(result: Result) -> None:
    """Print what to try next."""
    name = f"{result.version.model}@{result.version.version}"
    if not result.plan.keep:
        console.say("\nnext: `argosy demo --keep` leaves it running to look around in", style="dim")
        return
    commands = [
        f"export ARGOSY_HOME={result.plan.home}",
        "argosy device ls",
        f"argosy model get {name}",
        f"argosy telemetry summary {name} --by device",
        f"argosy rollout get {result.rollout.id}",
        f"argosy job submit {result.plan.job_file} --watch",
    ]
    console.say("\nto try, in another terminal:", style="dim")
    for command in commands:
        console.say(f"  {command}")


def as_json(result: Result) -> dict[str, Any]:
    """The figures as plain values; times in seconds, latencies in milliseconds."""
    return {
        "argosy": installed("argosy"),
        "ok": result.rollout.state is RolloutState.SUCCEEDED,
        "machine": {
            "cpus": os.cpu_count(),
            "arch": platform.machine(),
            "python": platform.python_version(),
        },
        "total_seconds": round(result.total_seconds, 3),
        "stages": {name: round(seconds, 3) for name, seconds in result.stages.items()},
        "preparation_seconds": round(result.preparation_seconds, 3),
        "job": result.job.model_dump(mode="json", exclude={"spec"}),
        "variants": [
            {
                "id": variant.id,
                "scheme": variant.scheme,
                "bytes": variant.file.size,
                "accuracy": [a.model_dump(mode="json") for a in variant.accuracy],
                "benchmarks": [b.model_dump(mode="json") for b in variant.benchmarks],
            }
            for variant in result.version.manifest.variants
        ],
        "registry": result.registry.model_dump(mode="json"),
        "rollout": result.rollout.model_dump(mode="json"),
        "devices": [
            {
                **row.model_dump(mode="json"),
                "variant": row.variant or _variant_of(result, row.device),
            }
            for row in result.devices
        ],
    }


def write_json(result: Result, path: Path) -> None:
    """Write the figures, whole or not at all."""
    text = json.dumps(as_json(result), indent=2, ensure_ascii=False) + "\n"
    write_atomic(path, text.encode(), mode=0o644)
