"""What jobs took of the cluster, and what that costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from schemas.job import Cost, Usage

_HOUR = 3600.0
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Prices:
    """A price table: money per reserved core and per reserved GPU for an hour."""

    currency: str
    cpu_hour: float
    gpu_hour: float


def total(usages: Iterable[Usage]) -> Usage:
    """The sum over attempts."""
    parts = list(usages)
    return Usage(
        wall_seconds=sum(part.wall_seconds for part in parts),
        cpu_seconds=sum(part.cpu_seconds for part in parts),
        gpu_seconds=sum(part.gpu_seconds for part in parts),
        cpu_used_seconds=sum(part.cpu_used_seconds for part in parts),
    )


def cost(usage: Usage, prices: Prices | None) -> Cost | None:
    """What was reserved, times its price; None without a price table."""
    if prices is None:
        return None
    amount = (usage.cpu_seconds * prices.cpu_hour + usage.gpu_seconds * prices.gpu_hour) / _HOUR
    return Cost(amount=round(amount, _DIGITS), currency=prices.currency)
