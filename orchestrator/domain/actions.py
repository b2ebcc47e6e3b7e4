"""What the rollout engine may do: to sets of executions, to a wave, to the rollout."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.domain.rollout import RolloutEvent, WaveEvent
from orchestrator.domain.snapshot import Due
from schemas.gates import Evidence
from schemas.rollout import ExecState, PauseReason


@dataclass(frozen=True, slots=True)
class Bar:
    """End the executions of devices that may not take part any more."""

    wave: int


@dataclass(frozen=True, slots=True)
class Retry:
    """Make another attempt of what failed by what may pass."""

    wave: int


@dataclass(frozen=True, slots=True)
class Extend:
    """Wait on for devices on probation whose telemetry shows that the version serves."""

    wave: int


@dataclass(frozen=True, slots=True)
class Expire:
    """Move what is due to ``becomes``: SCHEDULED takes an offer back, to be made again."""

    wave: int
    due: Due
    becomes: ExecState


@dataclass(frozen=True, slots=True)
class Offer:
    """Send the desired state to devices that are there."""

    wave: int


@dataclass(frozen=True, slots=True)
class Restamp:
    """Have offers of a time to come count as made now: the clock was set back since.

    Otherwise they would count for nothing, or hold everybody up until that time.
    """

    wave: int


@dataclass(frozen=True, slots=True)
class Proceed:
    """Tell devices that wait to go on."""

    wave: int


@dataclass(frozen=True, slots=True)
class Sift:
    """End what needs no device to be there: no variant fits, or it has the version already."""

    wave: int


@dataclass(frozen=True, slots=True)
class Straggle:
    """Move what is SCHEDULED, its device not being there, to the stragglers' wave."""

    wave: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End what is still SCHEDULED in the stragglers' wave, its device not being there."""

    wave: int


@dataclass(frozen=True, slots=True)
class MoveWave:
    """Apply an event to a wave, with the evidence for it. look: that the evidence is of.

    gone: how its devices ended, where none of them can be judged by.
    """

    index: int
    event: WaveEvent
    evidence: tuple[Evidence, ...] = ()
    look: int | None = None
    gone: str = ""


@dataclass(frozen=True, slots=True)
class TakeLook:
    """Read what both cohorts did and judge it, then decide again. last: no other look follows."""

    wave: int
    look: int
    last: bool


@dataclass(frozen=True, slots=True)
class KeepLook:
    """Keep what a look has shown, which settles nothing yet."""

    wave: int
    look: int
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class MoveRollout:
    """Apply an event to the rollout."""

    event: RolloutEvent
    reason: PauseReason | None = None


SetAction = Bar | Retry | Extend | Expire | Offer | Restamp | Proceed | Sift | Straggle | GiveUp
Action = SetAction | MoveWave | MoveRollout | TakeLook | KeepLook
