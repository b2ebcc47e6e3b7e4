"""Which variant each device of a rollout gets, from what the database holds now."""

from __future__ import annotations

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
from schemas.rollout_view import VariantShare

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
        found: dict[_Fate, VariantShare] = {}
        for group in groups:
            share = self._share(group)
            fate = (share.device_class, share.variant, share.estimated, share.p50_ms, share.reason)
            before = found.get(fate)
            found[fate] = share if before is None else _sum(before, share)
        rows = sorted(found.values(), key=lambda s: (s.device_class, -s.devices, s.variant or ""))
        return tuple(rows[:MAX_SHARES])

    def _share(self, group: Alike) -> VariantShare:
        """What devices that are alike get, and would have to fetch for it."""
        found = self.resolve(group)
        its = VariantShare(
            device_class=group.device_class, devices=group.devices, offline=group.offline
        )
        if isinstance(found, str):
            return its.model_copy(update={"reason": found})
        variant, figures = found.variant, found.figures
        its = its.model_copy(
            update={"variant": variant.id, "p50_ms": figures.p50_ms, "estimated": found.estimated}
        )
        if resolve.installed(group.active, self._manifest, self._version, variant):
            return its.model_copy(update={"installed": group.devices})
        each = variant.golden.file.size
        if group.active is None or group.active.sha256 != variant.file.sha256:
            each += variant.file.size
        return its.model_copy(update={"bytes": each * group.devices})


_Fate = tuple[str, str | None, bool, float | None, str | None]


def _sum(one: VariantShare, other: VariantShare) -> VariantShare:
    added = ("devices", "offline", "installed", "bytes")
    return one.model_copy(update={k: getattr(one, k) + getattr(other, k) for k in added})


def preview(tx: Transaction, rollout: RolloutRecord) -> tuple[VariantShare, ...]:
    """Who would get which variant if the rollout offered to all of its devices now."""
    manifest = parsed(found(tx, rollout.model, rollout.version).manifest)
    resolver = Resolver(tx, manifest, rollout.version, rollout.spec.variant)
    return resolver.shares(tx.executions.alike(Among(rollout_id=rollout.id), MAX_ALIKE))
