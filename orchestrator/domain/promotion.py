"""Which aliases move to a version when it is registered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from orchestrator.domain import alias as rules
from schemas.jobfile import Promote
from schemas.model import Manifest

CHAMPION = "champion"
"""The alias that a model's first version gets unasked."""

JUDGED = ("accuracy", "test")
"""The metric and the split that ``promote.min_accuracy`` speaks of."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """What was decided. text: a line for the job's log, where there is something to say."""

    aliases: tuple[str, ...]
    text: str | None = None
    level: Literal["info", "warning"] = "info"


def decide(
    promote: Promote,
    manifest: Manifest,
    *,
    first: bool,
    there: Mapping[str, int] | None = None,
) -> Promotion:
    """Judge a new version by its first variant's accuracy on the test split.

    Args:
        promote: the job's wish; the default of one that has none.
        manifest: the version's.
        first: it is the model's first version.
        there: the model's aliases, as they are.
    """
    why_not = _why_not(promote, manifest)
    if why_not is not None:
        alias = promote.alias or CHAMPION
        return Promotion((), f"the alias {alias} was not moved: {why_not}", "warning")
    wanted = (CHAMPION,) if first else ()
    if promote.alias is None:
        return Promotion(wanted)
    unfit = rules.unfit(promote.alias) or rules.refused(
        manifest.model, there or {}, promote.alias, None
    )
    if unfit is not None:
        return Promotion(wanted, f"the alias {promote.alias} was not moved: {unfit}", "warning")
    aliases = tuple(dict.fromkeys((*wanted, promote.alias)))
    return Promotion(aliases, f"the alias {promote.alias} was moved to the new version")


def _why_not(promote: Promote, manifest: Manifest) -> str | None:
    bar = promote.min_accuracy
    if not bar:
        return None
    variant = manifest.variants[0]
    value = next((a.value for a in variant.accuracy if (a.metric, a.split) == JUDGED), None)
    if value is None:
        return f"{variant.id} has no accuracy on the test split to hold against {bar:.4f}"
    if value < bar:
        return f"{variant.id} has an accuracy of {value:.4f} on the test split, below {bar:.4f}"
    return None
