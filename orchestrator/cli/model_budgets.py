"""Which variants fit the budget of a class, as far as the version itself says."""

from __future__ import annotations

from orchestrator.cli.model_text import single
from schemas.budget import Budget
from schemas.model import Manifest, Variant

_MB = 1e6


def limits(budget: Budget) -> str:
    """A budget in words, as in ``at most 0.1 MB, 5 ms``."""
    parts = [
        f"{limit:g} {unit}"
        for limit, unit in (
            (budget.max_size_mb, "MB"),
            (budget.max_latency_ms, "ms"),
            (budget.max_rss_mb, "MiB of memory"),
        )
        if limit is not None
    ]
    return f"at most {', '.join(parts)}" if parts else "without a limit"


def fitting(manifest: Manifest, budget: Budget) -> list[str]:
    """The variants within a budget by the figures of the machine that made them.

    What was not measured counts as within, as it does when a device is offered one.
    """
    return [variant.id for variant in manifest.variants if _fits(variant, budget)]


def _fits(variant: Variant, budget: Budget) -> bool:
    bench = single(variant)
    figures = (
        (variant.file.size / _MB, budget.max_size_mb),
        (bench.p50_ms if bench else None, budget.max_latency_ms),
        (bench.rss_growth_mb if bench else None, budget.max_rss_mb),
    )
    return all(figure is None or limit is None or figure <= limit for figure, limit in figures)
