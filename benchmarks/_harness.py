"""The one form of every benchmark: alternate, take medians, print a table, write JSON.

Ours and the baseline run in turn, and who begins changes each round, so that a machine
that warms up or slows down favours neither. A round gives a value per figure; what is
reported is the median of the rounds and the ratio of the medians, ours over baseline.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_LIBRARIES = ("torch", "ray", "onnxruntime", "numpy", "paho-mqtt")

Round = Callable[[], Mapping[str, float]]
"""Measures once: a value per figure, all in that figure's unit."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a benchmark is asked for. quick: one small round, to see that it runs."""

    quick: bool
    rounds: int


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and its baseline: the values of each round, in ``unit``."""

    unit: str
    ours: tuple[float, ...]
    baseline: tuple[float, ...]

    def summary(self) -> dict[str, float | str | int]:
        """Medians over the rounds, and ours over baseline."""
        ours, baseline = statistics.median(self.ours), statistics.median(self.baseline)
        return {
            "ours": ours,
            "baseline": baseline,
            "ratio": ours / baseline,
            "unit": self.unit,
            "rounds": len(self.ours),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What a benchmark found.

    details: JSON values that explain the figures and have no baseline.
    """

    figures: Mapping[str, Figure]
    details: Mapping[str, Any] = field(default_factory=dict)


def alternate(
    ours: Round, baseline: Round, *, rounds: int, units: Mapping[str, str]
) -> dict[str, Figure]:
    """Run both ``rounds`` times in turn; the second one begins in every other round.

    Args:
        ours: one measurement of ours.
        baseline: one measurement of what it is compared with.
        rounds: how many of each; at least 1.
        units: the figures that both must give, with their units.

    Raises:
        ValueError: a measurement lacks a figure, or gives one that is not finite and above 0.
    """
    if rounds < 1:
        msg = f"at least one round is needed, not {rounds}"
        raise ValueError(msg)
    values: tuple[list[Mapping[str, float]], list[Mapping[str, float]]] = ([], [])
    for number in range(rounds):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            note(f"round {number + 1} of {rounds}: {('ours', 'baseline')[side]}")
            values[side].append(_checked((ours, baseline)[side](), units))
    return {
        name: Figure(unit, tuple(v[name] for v in values[0]), tuple(v[name] for v in values[1]))
        for name, unit in units.items()
    }


def _checked(measured: Mapping[str, float], units: Mapping[str, str]) -> Mapping[str, float]:
    for name in units:
        if not 0 < measured.get(name, math.nan) < math.inf:
            msg = f"the measurement has no usable {name!r}: it gave {dict(measured)}"
            raise ValueError(msg)
    return measured


def note(text: str) -> None:
    """Say on stderr what goes on; stdout holds the table alone."""
    print(text, file=sys.stderr, flush=True)


def table(figures: Mapping[str, Figure]) -> str:
    """The figures as aligned text, with each one's spread over the rounds."""
    rows: list[tuple[str, ...]] = [("figure", "ours", "baseline", "ratio", "unit", "rounds")]
    for name, figure in figures.items():
        found = figure.summary()
        rows.append(
            (
                name,
                _with_spread(figure.ours),
                _with_spread(figure.baseline),
                f"{found['ratio']:.3g}",
                figure.unit,
                str(len(figure.ours)),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _with_spread(values: Sequence[float]) -> str:
    middle = f"{statistics.median(values):.4g}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.3g}-{max(values):.3g})"


def environment() -> dict[str, Any]:
    """What the figures depend on: the machine, the versions, the commit."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("argosy", *_LIBRARIES)},
        "commit": _commit(),
        "load": os.getloadavg()[0],
    }


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    found = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return found[0] if found else platform.processor()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None


def document(report: Report) -> dict[str, Any]:
    """The report as JSON: a key per figure, then ``details`` and ``environment``."""
    figures = {name: figure.summary() for name, figure in report.figures.items()}
    return {**figures, "details": dict(report.details), "environment": environment()}


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON so that a reader sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    part.replace(path)


def main(run: Callable[[Options], Report], *, what: str, rounds: int) -> None:
    """The command line of a benchmark.

    Args:
        run: measures.
        what: one line: what is compared with what.
        rounds: how many by default; ``--quick`` makes one.
    """
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--quick", action="store_true", help="one small round")
    parser.add_argument("--rounds", type=int, help=f"default: {rounds}, with --quick 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    asked = parser.parse_args()
    wanted = asked.rounds if asked.rounds is not None else (1 if asked.quick else rounds)
    if wanted < 1:
        parser.error("--rounds: at least 1")
    report = run(Options(quick=asked.quick, rounds=wanted))
    print(f"{what}\n\n{table(report.figures)}")
    if asked.json is not None:
        write(asked.json, document(report))
