"""``argosy telemetry features``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from orchestrator.cli.options import home_option, output_option
from orchestrator.cli.telemetry_options import is_narrow, marks, narrow_options, narrowed, nothing

if TYPE_CHECKING:
    from orchestrator.cli.output import Shape
    from schemas.telemetry import FeatureView


@click.command()
@click.argument("ref", metavar="MODEL[@VERSION]")
@narrow_options
@home_option
@output_option
def features(*, ref: str, home: Path | None, form: str, **options: Any) -> None:
    """Compare what inputs look like on devices with the training data.

    PSI grows with the distance; CHANCE is what it would be if nothing had changed. It explains
    an alarm, and is none.
    """
    from orchestrator.cli import console
    from orchestrator.cli.output import emit_list
    from orchestrator.cli.refs import load
    from orchestrator.client import Argosy

    narrow = narrowed(options)
    with Argosy.from_profile(home) as argosy:
        view = load(argosy, ref)
        found = list(argosy.telemetry.features(view.model, view.version, **narrow))
    if view.manifest.baseline is None or not view.manifest.baseline.features:
        console.say(
            f"{view.model}@{view.version} has no baseline of its inputs: models that were trained"
            " here have one, files that were registered do not",
            style="dim",
        )
        if not found and form == "table":
            return
    empty = nothing(view.model, view.version, narrowed_down=is_narrow(narrow))
    emit_list(found, form, _shape(), empty)


def _shape() -> Shape[FeatureView]:
    from orchestrator.cli import console
    from orchestrator.cli.output import Shape

    def figure(value: float | None) -> str:
        return console.NONE if value is None else f"{value:.3g}"

    def seen(view: FeatureView) -> int:
        return sum(view.counts) + view.under + view.over + view.nan

    def outside(view: FeatureView) -> str:
        of = seen(view)
        return console.percent((view.under + view.over) / of if of else None)

    return Shape(
        lambda view: view.name,
        ("VARIANT", lambda view: view.variant),
        ("FEATURE", lambda view: view.name),
        ("SAMPLES", lambda view: str(seen(view))),
        ("PSI", lambda view: figure(view.psi)),
        ("CHANCE", lambda view: figure(view.chance)),
        ("OUTSIDE", outside),
        ("NAN", lambda view: str(view.nan)),
        ("TRAINED ON", lambda view: marks(view.expected)),
        ("SEEN", lambda view: marks(view.counts)),
    )
