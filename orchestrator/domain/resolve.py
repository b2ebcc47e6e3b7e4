"""Which variant of a version a device gets, and why it gets none of the others.

Two steps. Out is what the device lacks something for, and what passes the budget of its
class. Of what remains the fastest goes out: by what devices of that class measured, and
for variants that they have not, by the figure of the machine that made them, scaled by
the median ratio of those that both have measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from orchestrator.domain.requirements import architecture, lacking
from schemas.budget import Budget
from schemas.device import ActiveModel, Hardware
from schemas.measure import Benchmark, MeasuredVariant
from schemas.model import Manifest, Variant

MAX_DETAIL = 8000
"""Characters of a refusal's text: room for some words on each of 64 variants."""

_MB = 1e6


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of a variant on a class of devices.

    p50_ms: median of single runs, None where nobody measured it. rss_mb: the growth of the
    process, MiB; rss_estimated: not by the class itself. devices: how many of the class
    measured the latency; 0: it is estimated.
    """

    p50_ms: float | None = None
    rss_mb: float | None = None
    devices: int = 0
    rss_estimated: bool = True


@dataclass(frozen=True, slots=True)
class Choice:
    """What a device gets. estimated: no device of its class has measured it."""

    variant: Variant
    figures: Figures = Figures()

    @property
    def estimated(self) -> bool:
        """Whether no device of that class has measured it."""
        return self.figures.devices == 0


@dataclass(frozen=True, slots=True)
class Refused:
    """It gets nothing. reasons: of every variant, in the manifest's order."""

    reasons: tuple[tuple[str, str], ...]

    def text(self, limit: int = MAX_DETAIL) -> str:
        """All reasons on one line; each is cut to its share where they are too many."""
        parts = [f"{variant}: {reason}" for variant, reason in self.reasons]
        whole = _line(parts)
        if len(whole) <= limit:
            return whole
        share = max(1, (limit - len(_line([]))) // len(parts) - len("; "))
        return _line([part if len(part) <= share else f"{part[: share - 1]}…" for part in parts])


def _line(parts: Sequence[str]) -> str:
    return f"no variant fits: {'; '.join(parts)}"


def resolve(
    manifest: Manifest,
    hardware: Hardware,
    device_class: str,
    budget: Budget | None,
    measured: Sequence[MeasuredVariant],
    wanted: str | None = None,
) -> Choice | Refused:
    """Decide for one device.

    Args:
        manifest: the version's.
        hardware: what the device says it is.
        device_class: its class.
        budget: the platform's for that class; one without limits says nothing.
        measured: what devices measured of this version, of any class.
        wanted: the only variant that may be given, if one was asked for.
    """
    limits = class_budget(manifest, device_class, budget)
    figures = known(manifest, hardware, device_class, measured)
    reasons = {
        variant.id: ", ".join(
            _why_not(variant, hardware, device_class, limits, figures[variant.id], wanted)
        )
        for variant in manifest.variants
    }
    fit = [variant for variant in manifest.variants if not reasons[variant.id]]
    if not fit:
        return Refused(tuple(reasons.items()))
    best = _best(fit, figures, is_limited=limits.max_latency_ms is not None)
    return Choice(best, figures[best.id])


def class_budget(manifest: Manifest, device_class: str, budget: Budget | None) -> Budget:
    """What binds: the platform's budget of a class, else the one the search was held to.

    One of them as a whole: an operator who lifts a limit must not find it in the manifest.
    """
    if budget is not None and budget != Budget():
        return budget
    return manifest.budgets.get(device_class, Budget())


def known(
    manifest: Manifest,
    hardware: Hardware,
    device_class: str,
    measured: Sequence[MeasuredVariant],
) -> dict[str, Figures]:
    """What is known of each variant, by its id: measured on the class, else estimated."""
    own = {one.variant: one for one in measured if one.device_class == device_class}
    made = {variant.id: _benchmark(variant, hardware) for variant in manifest.variants}
    scale = _scale(own, made)
    return {variant.id: _figures(own, made, variant.id, scale) for variant in manifest.variants}


def _figures(
    own: Mapping[str, MeasuredVariant],
    made: Mapping[str, Benchmark | None],
    variant: str,
    scale: float,
) -> Figures:
    mine, theirs = own.get(variant), made[variant]
    rss = theirs.rss_growth_mb if theirs else None
    if mine is not None:
        if mine.rss_growth_mb is None:
            return Figures(mine.p50_ms, rss, mine.devices)
        return Figures(mine.p50_ms, mine.rss_growth_mb, mine.devices, rss_estimated=False)
    return Figures(theirs.p50_ms * scale, rss) if theirs else Figures()


def _benchmark(variant: Variant, hardware: Hardware) -> Benchmark | None:
    """Single runs on the machine that made the variant, if it was one like the device."""
    arch = architecture(hardware.arch)
    return next(
        (
            one
            for one in variant.benchmarks
            if one.batch == 1
            and one.device_class is None
            and one.arch is not None
            and architecture(one.arch) == arch
            and one.provider in hardware.providers
        ),
        None,
    )


def _scale(own: Mapping[str, MeasuredVariant], made: Mapping[str, Benchmark | None]) -> float:
    """How much slower the class is than that machine: 1 where nothing says."""
    ratios = [
        mine.p50_ms / theirs.p50_ms
        for variant, mine in own.items()
        if (theirs := made.get(variant)) is not None and theirs.p50_ms > 0 and mine.p50_ms > 0
    ]
    return median(ratios) if ratios else 1.0


def _why_not(
    variant: Variant,
    hardware: Hardware,
    device_class: str,
    limits: Budget,
    figures: Figures,
    wanted: str | None,
) -> Iterator[str]:
    """Each reason for which the device may not have the variant."""
    if wanted not in (None, variant.id):
        yield f"the rollout asks for {wanted}"
    yield from lacking(variant.requires, hardware)
    at_most = f"class {device_class} allows"
    size = variant.file.size / _MB
    if limits.max_size_mb is not None and size > limits.max_size_mb:
        yield f"has {size:.4g} MB, {at_most} {limits.max_size_mb:g}"
    p50, rss = figures.p50_ms, figures.rss_mb
    if limits.max_latency_ms is not None and p50 is not None and p50 > limits.max_latency_ms:
        how = "" if figures.devices else "an estimated "
        yield f"takes {how}{p50:.4g} ms, {at_most} {limits.max_latency_ms:g}"
    if limits.max_rss_mb is not None and rss is not None and rss > limits.max_rss_mb:
        how = "an estimated " if figures.rss_estimated else ""
        yield f"takes {how}{rss:.4g} MiB of memory, {at_most} {limits.max_rss_mb:g}"


def _best(fit: Sequence[Variant], figures: Mapping[str, Figures], *, is_limited: bool) -> Variant:
    """The fastest; of equally fast ones the smaller file, then the manifest's order.

    A variant of which nothing is known keeps its place in the manifest: where it is the
    first, it goes out, and is measured then. Under a limit of latency what is known to
    keep it goes first.
    """
    timed = [
        (p50, variant.file.size, place, variant)
        for place, variant in enumerate(fit)
        if (p50 := figures[variant.id].p50_ms) is not None
    ]
    if timed and (is_limited or figures[fit[0].id].p50_ms is not None):
        return min(timed, key=lambda one: one[:3])[-1]
    return fit[0]


def installed(
    active: ActiveModel | None, manifest: Manifest, version: int, variant: Variant
) -> bool:
    """Whether the device serves exactly that variant of that version already."""
    return active is not None and (active.model, active.version, active.sha256) == (
        manifest.model,
        version,
        variant.file.sha256,
    )
