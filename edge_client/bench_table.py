"""Measured figures in words: what ``argosy-edge bench`` prints."""

from __future__ import annotations

from edge_client.bench_command import Benched
from schemas.measure import Benchmark, Energy

_HEAD = ("variant", "batch", "p50", "p95", "p99", "cpu", "load", "first", "memory", "energy")


def table(benched: Benched) -> list[str]:
    """The figures for people: a line per variant and batch size, aligned."""
    rows: list[tuple[str, ...]] = [_HEAD]
    for one in benched.reports:
        name = f"{one.model} v{one.version} {one.variant}"
        rows += [_row(name, figures) for figures in one.benchmarks]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    return ["  ".join(_cell(i, cell, widths[i]) for i, cell in enumerate(row)) for row in rows]


def _row(name: str, figures: Benchmark) -> tuple[str, ...]:
    return (
        name,
        str(figures.batch),
        _ms(figures.p50_ms),
        _ms(figures.p95_ms),
        _ms(figures.p99_ms),
        _ms(figures.cpu_ms),
        _ms(figures.load_ms),
        _ms(figures.first_ms),
        _mib(figures.rss_growth_mb),
        _energy(figures.energy),
    )


def notes(benched: Benched) -> list[str]:
    """What the table does not say."""
    told = []
    if benched.reports:
        one = benched.reports[0].benchmarks[0]
        nodes = ", ".join(f"{provider} {n}" for provider, n in one.nodes.items()) or one.provider
        told.append(
            f"{one.host}, class {benched.device_class}, ONNX Runtime {one.ort}, 1 thread,"
            f" {one.runs} runs after {one.warm_up}; nodes: {nodes}"
        )
        every = [b.energy for r in benched.reports for b in r.benchmarks if b.energy]
        watts = {energy.watts for energy in every if energy.estimated and energy.watts}
        if watts:
            told.append(f"~ estimated: CPU time by {min(watts):g} W, as no meter can be read")
    told += [
        f"{f.model.model} v{f.model.version} {f.model.variant} was not measured: {f.reason}"
        for f in benched.failed
    ]
    return told


def _cell(column: int, text: str, width: int) -> str:
    return text.ljust(width) if column == 0 else text.rjust(width)


def _ms(value: float | None) -> str:
    """A time with three digits, in the unit that suits it."""
    if value is None:
        return "-"
    return f"{value * 1e3:.3g} µs" if value < 1 else f"{_digits(value)} ms"


def _mib(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} MiB"


def _energy(energy: Energy | None) -> str:
    if energy is None:
        return "-"
    low = energy.millijoules < 1
    text = f"{energy.millijoules * 1e3:.3g} µJ" if low else f"{_digits(energy.millijoules)} mJ"
    return f"~{text}" if energy.estimated else text


def _digits(value: float) -> str:
    """Three digits, or as many as there are before the point; never an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits
