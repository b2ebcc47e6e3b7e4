"""``argosy telemetry``: what devices report of a version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option, output_option

if TYPE_CHECKING:
    from schemas.telemetry import TelemetrySummary


@click.command()
@click.argument("ref", metavar="MODEL[@VERSION]")
@click.option("--by-device", is_flag=True, help="One line for each device.")
@home_option
@output_option
def telemetry(*, ref: str, by_device: bool, home: Path | None, form: str) -> None:
    """See what devices report of a model version."""
    from orchestrator.cli import console
    from orchestrator.cli.output import Shape, emit_list
    from orchestrator.cli.refs import resolve
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        name, version = resolve(argosy, ref)
        found = list(argosy.telemetry.summary(name, version, by_device=by_device))
    shape: Shape[TelemetrySummary] = Shape(
        lambda s: s.device or f"{s.model}@{s.version}",
        ("DEVICE", lambda s: s.device or "all"),
        ("VARIANT", lambda s: s.variant or console.NONE),
        ("INFERENCES", lambda s: str(s.n)),
        ("ERRORS", lambda s: str(s.errors)),
        ("ACCURACY", lambda s: console.percent(s.accuracy)),
        ("LABELLED", lambda s: str(s.labelled)),
        ("P50", lambda s: console.ms(s.p50_ms)),
        ("P95", lambda s: console.ms(s.p95_ms)),
        ("P99", lambda s: console.ms(s.p99_ms)),
    )
    emit_list(found, form, shape, f"no device has reported on {name}@{version} yet")
