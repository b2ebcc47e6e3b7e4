"""``argosy telemetry summary`` and ``series``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from orchestrator.cli.options import home_option, output_option
from orchestrator.cli.telemetry_options import is_narrow, marks, narrow_options, narrowed, nothing

if TYPE_CHECKING:
    from orchestrator.cli.output import Column, Shape
    from schemas.telemetry import TelemetryPoint, TelemetrySummary


@click.command()
@click.argument("ref", metavar="MODEL[@VERSION]")
@click.option(
    "--by", type=click.Choice(["device", "class", "tag"]), help="Tell these apart, a line for each."
)
@narrow_options
@home_option
@output_option
def summary(*, ref: str, by: Any, home: Path | None, form: str, **options: Any) -> None:
    """Add up what devices tell of a model version.

    By default everything that is kept; narrow it down with --since 7d and the like.
    """
    from orchestrator.cli.output import emit_list
    from orchestrator.cli.refs import resolve
    from orchestrator.client import Argosy

    narrow = narrowed(options)
    with Argosy.from_profile(home) as argosy:
        name, version = resolve(argosy, ref)
        found = list(argosy.telemetry.summary(name, version, by=by, **narrow))
    empty = nothing(name, version, narrowed_down=is_narrow(narrow))
    emit_list(found, form, _summaries(found), empty)
    if form == "table":
        _say_more(found)


@click.command()
@click.argument("ref", metavar="MODEL[@VERSION]")
@click.option(
    "--bucket",
    type=click.Choice(["1m", "1h", "1d"]),
    default="1h",
    show_default=True,
    help="How long each line is; minutes are known for days, hours for longer.",
)
@narrow_options
@home_option
@output_option
def series(*, ref: str, bucket: Any, home: Path | None, form: str, **options: Any) -> None:
    """See what devices tell of a model version over time.

    Without --since: the last hour by the minute, day by the hour, or month by the day.
    """
    from orchestrator.cli import console
    from orchestrator.cli.output import emit_list
    from orchestrator.cli.refs import resolve
    from orchestrator.client import Argosy

    narrow = narrowed(options)
    with Argosy.from_profile(home) as argosy:
        name, version = resolve(argosy, ref)
        points = list(argosy.telemetry.series(name, version, bucket=bucket, **narrow))
    empty = nothing(name, version, narrowed_down=True)
    emit_list(points, form, _points(), empty)
    line = marks([point.n for point in points])
    if form == "table" and line:
        console.say(f"samples {line}", style="dim")


def _summaries(found: Sequence[TelemetrySummary]) -> Shape[TelemetrySummary]:
    from orchestrator.cli import console
    from orchestrator.cli.output import Shape

    def who(row: TelemetrySummary) -> str:
        return row.device or row.device_class or row.tag or "all"

    columns: list[Column[TelemetrySummary]] = [
        ("OF", who),
        ("VARIANT", lambda s: s.variant or console.NONE),
        ("SAMPLES", lambda s: str(s.n)),
        ("ERRORS", lambda s: str(s.errors)),
    ]
    for heading, name in (("REJECTED", "rejected"), ("SHED", "shed"), ("LOST", "lost")):
        if any(getattr(row, name) for row in found):
            columns.append((heading, _plain(name)))
    if any(row.compared for row in found):
        columns.append(("AGREEMENT", lambda s: console.percent(s.agreement)))
    columns += [
        ("ACCURACY", lambda s: console.percent(s.accuracy)),
        ("LABELLED", lambda s: str(s.labelled)),
        ("P50", lambda s: console.ms(s.p50_ms)),
        ("P95", lambda s: console.ms(s.p95_ms)),
        ("P99", lambda s: console.ms(s.p99_ms)),
    ]
    return Shape(lambda s: s.device or f"{s.model}@{s.version}", *columns)


def _plain(name: str) -> Any:
    return lambda row: str(getattr(row, name))


def _points() -> Shape[TelemetryPoint]:
    from orchestrator.cli import console
    from orchestrator.cli.output import Shape

    return Shape(
        lambda p: p.at.isoformat(),
        ("AT", lambda p: p.at.astimezone().strftime("%Y-%m-%d %H:%M")),
        ("VARIANT", lambda p: p.variant or console.NONE),
        ("SAMPLES", lambda p: str(p.n)),
        ("A SECOND", lambda p: f"{p.n / p.bucket_seconds:.3g}"),
        ("ERRORS", lambda p: console.percent(p.error_rate)),
        ("ACCURACY", lambda p: console.percent(p.accuracy)),
        ("P50", lambda p: console.ms(p.p50_ms)),
        ("P95", lambda p: console.ms(p.p95_ms)),
        ("P99", lambda p: console.ms(p.p99_ms)),
        ("QUEUE P95", lambda p: console.ms(p.queue.p95_ms)),
    )


def _say_more(found: Sequence[TelemetrySummary]) -> None:
    """What needs no column: energy, bytes, providers and the mix of classes, of each line."""
    from orchestrator.cli import console

    if len(found) > 3:  # noqa: PLR2004 - a screen of lines helps nobody; -o yaml has it all
        return
    for row in found:
        facts = [_energy(row), _bytes(row), _providers(row), _mix(row)]
        for fact in facts:
            if fact:
                console.say(f"{_of(row)}{row.variant}: {fact}", style="dim")


def _of(row: TelemetrySummary) -> str:
    """Whose line it is, where there are several."""
    who = row.device or row.device_class or row.tag
    return f"{who}, " if who else ""


def _energy(row: TelemetrySummary) -> str:
    parts = [
        f"{joules:.3g} J {how}"
        for joules, how in (
            (row.joules_per_1000_measured, "measured"),
            (row.joules_per_1000_estimated, "estimated"),
        )
        if joules is not None
    ]
    return f"energy of 1,000 samples: {', '.join(parts)}" if parts else ""


def _bytes(row: TelemetrySummary) -> str:
    from orchestrator.cli import console

    if not row.raw_bytes:
        return ""
    raw, told = console.size(row.raw_bytes), console.size(row.telemetry_bytes)
    return f"{told} of telemetry in place of {raw} of inputs"


def _providers(row: TelemetrySummary) -> str:
    from orchestrator.cli import console

    if set(row.providers) <= {"CPUExecutionProvider"} and not row.fallbacks:
        return ""
    ran = ", ".join(
        f"{name} {console.percent(count / row.n)}" for name, count in row.providers.items()
    )
    wanted = ", ".join(f"{count} asked for {name}" for name, count in row.fallbacks.items())
    return f"ran on {ran}" + (f"; {wanted}" if wanted else "")


def _mix(row: TelemetrySummary) -> str:
    if not row.classes:
        return ""
    labels = range(min(max(row.classes) + 1, 60))
    line = marks([row.classes.get(label, 0) for label in labels])
    return f"classes {line}" if line else ""
