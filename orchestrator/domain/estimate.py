"""What a plan would cost: bytes, and a guess at seconds with what it rests on.

The guess is of a rollout where every device is there and nothing fails. It walks through the waves
as the engine would: offers by rate and growth, devices at work by concurrency, bytes by the rates
below, then each device's own judgement, soak and evidence, and maintenance windows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.domain.pace import rate
from schemas.maintenance import for_download, look
from schemas.pace import MaintenanceWindow, Pace, Urgency
from schemas.rollout import RolloutSpec
from schemas.rollout_view import Estimate, VariantShare

DEVICE_RATE = 1_000_000
"""Bytes a second that one device is taken to fetch: a slow line."""

SERVER_RATE = 50_000_000
"""Bytes a second to all devices together where the server has no limit of its own."""

ASKED_PER_SECOND = 1.0
"""Inferences of a device, by which evidence comes."""

_MINUTE = 60.0
_MAX_SECONDS = 100 * 366 * 86400.0


@dataclass(frozen=True, slots=True)
class Wave:
    """A wave of a plan: devices that have to fetch something, and how many bytes each."""

    devices: int
    bytes_each: float


def estimate(
    spec: RolloutSpec,
    sizes: Sequence[int],
    shares: Iterable[VariantShare],
    now: datetime,
    transfer_rate: int | None = None,
    classes: Sequence[Mapping[str, int]] = (),
) -> Estimate:
    """What a plan would cost if it started now.

    Args:
        spec: the plan.
        sizes: devices of each wave.
        shares: all of them by class and variant.
        now: the time, with a zone.
        transfer_rate: bytes a second that the server sends at most; None is without limit.
        classes: of each wave, how many devices of each class it has.
    """
    shares = tuple(shares)
    devices = sum(share.devices for share in shares)
    incompatible = sum(share.devices for share in shares if share.variant is None)
    installed = sum(share.installed for share in shares)
    total = sum(share.bytes for share in shares)
    updated = devices - incompatible - installed
    part = updated / devices if devices else 0.0
    each = total / updated if updated else 0.0
    # Sizes are rounded, so that a canary of one device stays one; the sum is only a guess's.
    waves = [Wave(round(size * part) or min(size, updated, 1), each) for size in sizes]
    cap = transfer_rate or SERVER_RATE
    waits = spec.mode.urgency is Urgency.DOWNLOAD_ONLY
    return Estimate(
        devices=devices,
        offline=sum(share.offline for share in shares),
        incompatible=incompatible,
        installed=installed,
        bytes=total,
        seconds=None if waits else _seconds(spec, waves, now, cap),
        notes=(*_small_waves(spec, classes), *_notes(spec, shares, cap)),
    )


def _seconds(spec: RolloutSpec, waves: Sequence[Wave], now: datetime, cap: float) -> float | None:
    """From start to the last verdict; None where that never comes, or not in a hundred years."""
    took, done = 0.0, 0
    for wave in waves:
        if not wave.devices:
            continue
        waited = _waited(spec, now, took, _fetching(spec, wave))
        if waited is None:
            return None
        took += waited + wave_seconds(spec, wave, done, cap)
        done += wave.devices
    return took if took < _MAX_SECONDS else None


def _waited(spec: RolloutSpec, now: datetime, after: float, fetching: float) -> float | None:
    """How long a wave that begins then waits for its windows."""
    if not spec.windows:
        return 0.0
    if after > _MAX_SECONDS:
        return None
    at = now + timedelta(seconds=after)
    begun = _opened(for_download(spec.windows), at)
    if begun is None:
        return None
    fetched = begun + timedelta(seconds=min(fetching, _MAX_SECONDS))
    switched = _opened(spec.windows, fetched)
    if switched is None:
        return None
    return (begun - at + (switched - fetched)).total_seconds()


def wave_seconds(spec: RolloutSpec, wave: Wave, succeeded: int, cap: float) -> float:
    """From the first offer of a wave to its verdict, maintenance windows apart.

    Args:
        spec: the plan.
        wave: of at least one device.
        succeeded: devices of the waves before, by which a rate has grown.
        cap: bytes a second to all devices together.
    """
    n, judging = wave.devices, _judging(spec)
    busy = _fetching(spec, wave) + judging
    last = offering_seconds(n, spec.pace, succeeded, busy)
    if spec.pace.concurrent is not None:
        last = max(last, (math.ceil(n / spec.pace.concurrent) - 1) * busy)
    finished = max(last + busy, n * wave.bytes_each / cap + judging)
    evidence = spec.gates.min_inferences / ASKED_PER_SECOND - judging
    return finished + max(spec.gates.soak_seconds, evidence, 0.0)


def offering_seconds(devices: int, pace: Pace, succeeded: int, busy: float) -> float:
    """When the last of so many devices is offered, after the first.

    Args:
        devices: how many.
        pace: of the rollout.
        succeeded: before.
        busy: seconds from an offer to its success, after which a rate may grow.
    """
    at, offered, more = 0.0, 0.0, 0
    per_minute = rate(pace, succeeded)
    if per_minute is None:
        return 0.0
    steps = [(0.0, 0.0, per_minute)]
    while pace.growth is not None:
        after = pace.growth.after
        more += after - (succeeded + more) % after
        # The rate grows once so many have succeeded: those that were offered `busy` before.
        grows = _reached(steps, more) + busy
        upto = offered + (grows - at) * per_minute / _MINUTE
        if upto >= devices - 1:
            break
        faster = rate(pace, succeeded + more) or per_minute
        at, offered = grows, upto
        if faster <= per_minute:
            break
        per_minute = faster
        steps.append((at, offered, per_minute))
    return at + max(0.0, devices - 1 - offered) * _MINUTE / per_minute


def _reached(steps: Sequence[tuple[float, float, float]], devices: int) -> float:
    """When so many devices had been offered, by the rates that held from each step on."""
    at, offered, per_minute = next((one for one in reversed(steps) if one[1] < devices), steps[0])
    return at + (devices - 1 - offered) * _MINUTE / per_minute


def _fetching(spec: RolloutSpec, wave: Wave) -> float:
    return spec.pace.jitter_seconds / 2 + wave.bytes_each / DEVICE_RATE


def _judging(spec: RolloutSpec) -> float:
    """What a device takes to judge for itself: as a shadow, and on probation."""
    asked = spec.probation.min_inferences / ASKED_PER_SECOND
    probation = min(asked, spec.probation.max_seconds)
    return probation + (spec.shadow.seconds if spec.shadow is not None else 0.0)


def _opened(windows: tuple[MaintenanceWindow, ...], at: datetime) -> datetime | None:
    """The first time from then on at which a window is open."""
    found = look(windows, at)
    return at if found.open else found.until


def _notes(spec: RolloutSpec, shares: Sequence[VariantShare], cap: float) -> Iterator[str]:
    yield (
        f"a device is taken to fetch {DEVICE_RATE / 1e6:g} MB/s, all together {cap / 1e6:g} MB/s,"
        f" and to be asked {ASKED_PER_SECOND:g} time a second"
    )
    yield "a patch, or one broadcast to many, may make it fewer bytes"
    if any(share.offline for share in shares):
        yield (
            "devices that are not there are waited for up to"
            f" {_span(spec.straggler_seconds)} after the last wave"
        )
    if spec.gates.telemetry:
        patience = _span(spec.gates.evidence_seconds)
        yield f"evidence that is missing is waited for up to {patience} more"
    if spec.windows:
        yield "a wave is taken to fit into one opening of its windows"
    if spec.mode.urgency is Urgency.DOWNLOAD_ONLY:
        yield "devices stage it and wait for a word: how long cannot be said"
    elif spec.mode.urgency is not Urgency.FORCED:
        yield f"devices may put it off for up to {_span(spec.max_deferral_seconds)}: not in it"
    if spec.approval:
        yield "it counts from the approval on"
    if spec.dynamic:
        yield "devices that join later are not in it"


def _small_waves(spec: RolloutSpec, classes: Sequence[Mapping[str, int]]) -> Iterator[str]:
    """Where a gate that is required will stay open, as nothing can be compared.

    Devices of a class count with those of the waves before, which have passed by then.
    """
    if not any(gate.required for gate in spec.gates.telemetry):
        return
    least, so_far = spec.gates.min_devices, Counter[str]()
    for number, its in enumerate(classes, 1):
        so_far.update(its)
        few = [
            _few(name, n, so_far[name])
            for name, n in sorted(its.items())
            if n > 0 and so_far[name] < least
        ]
        if few:
            yield (
                f"wave {number} has {', '.join(few)}, and a class is compared from {least} on:"
                " required gates stay open there, and it pauses as inconclusive; take larger"
                " waves, a smaller --min-devices, or a ? behind the gate"
            )


def _few(name: str, here: int, so_far: int) -> str:
    """How many of a class there are to be compared."""
    return f"{here} of {name}" + (f" ({so_far} with the waves before)" if so_far > here else "")


def _span(seconds: float) -> str:
    """As in ``90 s``, ``15 min``, ``1.5 h``, ``2 days``."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
