"""Which variant each device of a rollout gets, from what the database holds now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from typing import Protocol

from orchestrator.domain import resolve
from orchestrator.domain.resolve import Choice, Refused
from orchestrator.services.ports import Transaction
from orchestrator.services.records import Alike, Among, RolloutRecord
from orchestrator.services.versions import found
from schemas.budget import Budget
from schemas.device import Hardware
from schemas.measure import MeasuredVariant
from schemas.model import Manifest
from schemas.rollout import VariantShare

MAX_SHARES = 200
"""Rows of a preview: devices differ in what they are, and so do reasons."""

MAX_ALIKE = 1_000
"""Groups of alike devices that a preview looks at, the largest first."""

UNKNOWN_DEVICE = "no variant fits: the device has not said what it is"


class Resolvable(Protocol):
    """What decides which variant a device gets."""

    @property
    def device_class(self) -> str:
        """Its class."""
        ...

    @property
    def hardware(self) -> Hardware | None:
        """What it says it is."""
        ...


@lru_cache(maxsize=8)
def parsed(manifest: str) -> Manifest:
    """A manifest by its JSON; the last few are kept, as versions never change."""
    return Manifest.model_validate_json(manifest)


class Resolver:
    """Decides for the devices of one rollout; alike ones once.

    Args:
        tx: where budgets and figures are read, when the first device is decided.
        manifest: of the version.
        version: its number.
        wanted: the only variant that the rollout may give, if it names one.
    """

    def __init__(
        self, tx: Transaction, manifest: Manifest, version: int, wanted: str | None
    ) -> None:
        self._tx = tx
        self._manifest = manifest
        self._version = version
        self._wanted = wanted
        self._known: dict[tuple[str, Hardware], Choice | Refused] = {}

    @cached_property
    def _budgets(self) -> dict[str, Budget]:
        return {record.name: record.spec.budget for record in self._tx.device_classes.all()}

    @cached_property
    def _measured(self) -> Sequence[MeasuredVariant]:
        return self._tx.measured.of_version(self._manifest.model, self._version)

    def resolve(self, device: Resolvable) -> Choice | str:
        """What a device gets, or why it gets nothing."""
        if device.hardware is None:
            return UNKNOWN_DEVICE
        key = (device.device_class, device.hardware)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = resolve.resolve(
                self._manifest,
                device.hardware,
                device.device_class,
                self._budgets.get(device.device_class),
                self._measured,
                self._wanted,
            )
        return found.text() if isinstance(found, Refused) else found

    def shares(self, groups: Iterable[Alike]) -> tuple[VariantShare, ...]:
        """How many devices of each class get which variant, and how many none and why."""
        counts: Counter[tuple[str, str | None, bool, float | None, str | None]] = Counter()
        for group in groups:
            found, name = self.resolve(group), group.device_class
            if isinstance(found, str):
                counts[name, None, False, None, found] += group.devices
            else:
                p50 = found.figures.p50_ms
                counts[name, found.variant.id, found.estimated, p50, None] += group.devices
        rows = sorted(counts.items(), key=lambda row: (row[0][0], -row[1], row[0][1] or ""))
        return tuple(
            VariantShare(
                device_class=device_class,
                variant=variant,
                devices=n,
                p50_ms=p50,
                estimated=estimated,
                reason=reason,
            )
            for (device_class, variant, estimated, p50, reason), n in rows[:MAX_SHARES]
        )


def preview(tx: Transaction, rollout: RolloutRecord) -> tuple[VariantShare, ...]:
    """Who would get which variant if the rollout offered to all of its devices now."""
    manifest = parsed(found(tx, rollout.model, rollout.version).manifest)
    resolver = Resolver(tx, manifest, rollout.version, rollout.spec.variant)
    return resolver.shares(tx.executions.alike(Among(rollout_id=rollout.id), MAX_ALIKE))
