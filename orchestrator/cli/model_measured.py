"""What classes of devices measured of a version, and what is expected where they did not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from orchestrator.cli.model_text import single
from schemas.measure import MeasuredVariant
from schemas.model import ModelVersionView


@dataclass(frozen=True, slots=True)
class OnClass:
    """A variant on a class of devices.

    p50_ms: of single runs. measured: None where p50_ms is an estimate: the figure of the
    machine that made the variant, scaled by the median of what both have measured.
    """

    device_class: str
    variant: str
    p50_ms: float
    measured: MeasuredVariant | None = None


def on_classes(view: ModelVersionView) -> list[OnClass]:
    """Variants on every class that measured any, as far as anything can be said of them."""
    return [
        one
        for name in sorted({m.device_class for m in view.measured})
        for one in _on_class(view, name, [m for m in view.measured if m.device_class == name])
    ]


def _on_class(
    view: ModelVersionView, name: str, measured: Sequence[MeasuredVariant]
) -> list[OnClass]:
    by_variant = {m.variant: m for m in measured}
    host = {v.id: b.p50_ms for v in view.manifest.variants if (b := single(v)) is not None}
    ratios = [m.p50_ms / host[m.variant] for m in measured if host.get(m.variant)]
    scale = median(ratios) if ratios else None
    rows = []
    for variant in view.manifest.variants:
        found = by_variant.get(variant.id)
        if found is not None:
            rows.append(OnClass(name, variant.id, found.p50_ms, found))
        elif scale is not None and variant.id in host:
            rows.append(OnClass(name, variant.id, host[variant.id] * scale))
    return rows
