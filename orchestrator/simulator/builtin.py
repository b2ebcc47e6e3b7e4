"""Profiles that are there without a file."""

from __future__ import annotations

from orchestrator.simulator.profile import (
    Board,
    Drift,
    DuplicatedReports,
    Effect,
    Flapping,
    Kind,
    LostReports,
    Offline,
    Profile,
    Slow,
    Traffic,
    WrongClock,
)

_CAMERA = Kind(
    name="camera",
    share=3,
    tags=("sim",),
    board=Board(arch="aarch64", isa=("dotprod", "neon"), ram_mb=2048),
    traffic=Traffic(latency_ms=18, accuracy=0.93, drift=Drift(own=0.01, common=0.02)),
)
_GATEWAY = Kind(
    name="gateway",
    share=1,
    tags=("sim",),
    traffic=Traffic(latency_ms=5, accuracy=0.95, drift=Drift(own=0.005, common=0.01)),
)

HEALTHY = Profile(classes=(Kind(name="default", tags=("sim",)),))
"""One class, nothing goes wrong."""

MIXED = Profile(
    classes=(_CAMERA, _GATEWAY),
    faults=(
        Offline(kind="offline", share=0.03),
        Slow(kind="slow", share=0.05, factor=5),
        Flapping(kind="flapping", share=0.02),
    ),
)
"""Two classes, with what a field brings: some are offline, slow, or on a bad network."""

ROUGH = Profile(
    classes=(_CAMERA, _GATEWAY),
    faults=(
        Offline(kind="offline", share=0.1),
        Slow(kind="slow", share=0.15, factor=10),
        Flapping(kind="flapping", share=0.1, every_seconds=15, down_seconds=6),
        WrongClock(kind="wrong_clock", share=0.05),
        LostReports(kind="lost_reports", share=0.1),
        DuplicatedReports(kind="duplicated_reports", share=0.1),
    ),
    versions=(Effect(fail=0.05),),
)
"""The same on a bad day: reports get lost and doubled, clocks are wrong, updates fail."""

BUILT_IN = {"healthy": HEALTHY, "mixed": MIXED, "rough": ROUGH}
