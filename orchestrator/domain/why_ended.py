"""Why a device does not serve a version whose rollout is over for it."""

from __future__ import annotations

from orchestrator.domain.rollout import ROLLOUT_TERMINAL
from orchestrator.domain.why_facts import ModelNow, Part, Reason, because, moment, named_of
from schemas.device_why import Hindrance
from schemas.errors import DeviceCause
from schemas.rollout import ExecState

H = Hindrance
S = ExecState

_START, _TRIAL = "did not survive its start", "did not pass its probation"
_ON_TRIAL = {
    DeviceCause.BOOT_LOOP: _START,
    DeviceCause.OUT_OF_MEMORY: _START,
    DeviceCause.HUNG: _START,
    DeviceCause.LOAD_FAILED: _START,
    DeviceCause.PROBATION_FAILED: _TRIAL,
    DeviceCause.TOO_SLOW: _TRIAL,
}
_SERVED = frozenset({S.SUCCEEDED, S.ALREADY_INSTALLED})


def ended(model: ModelNow, part: Part) -> Reason:
    """Say how the device's part in a rollout ended."""
    named = named_of(part.plan)
    if part.undone_by_hand:
        text = f"{named} of rollout {part.plan.id} was put back by hand at the device."
        return Reason(H.BY_HAND, text)
    by = _newer(model, part)
    if by is not None and by.plan.takes_back == part.plan.version:
        why = because(part.plan.reason)
        text = f"{named} was taken back at {moment(by.at)} by rollout {by.plan.id}{why}."
        return Reason(H.TAKEN_BACK, text)
    if part.undone_by_itself:
        return _went_back(part)
    if part.state in _SERVED or part.late is S.SUCCEEDED:
        return _was_served(part, by)
    return _never_served(part)


def _never_served(part: Part) -> Reason:
    named, at = named_of(part.plan), moment(part.at)
    of, why = f"in rollout {part.plan.id}", cause_words(part)
    match part.state:
        case S.NO_VARIANT:
            return Reason(H.NO_VARIANT, f"No variant of {named} fits it{because(part.detail)}.")
        case S.ROLLED_BACK:
            return _went_back(part)
        case S.SUPERSEDED:
            return Reason(H.SUPERSEDED, f"Another rollout took the place of {part.plan.id}{why}.")
        case S.CANCELLED:
            return Reason(H.CANCELLED, f"{named} was called off {of} at {at}{why}.")
        case S.REMOVED:
            return Reason(H.REMOVED, f"It was taken out {of} at {at}{why}.")
        case _:
            return _failed(part, f"at {at}", why)


def _went_back(part: Part) -> Reason:
    """It was tried there, and what served before was put back without anybody's word."""
    named, why = named_of(part.plan), cause_words(part)
    kept = "did not stay in service"
    if part.state is S.ROLLED_BACK and part.cause is not None:
        kept = _ON_TRIAL.get(part.cause, "did not stay")
    tried = f"{named} was tried at {moment(part.at)} by rollout {part.plan.id}, {kept}"
    why = f" ({why.removeprefix(': ')})" if why else ""
    return Reason(H.ROLLED_BACK, f"{tried}{why}, and the device put back by itself what it had.")


def _was_served(part: Part, by: Part | None) -> Reason:
    named = named_of(part.plan)
    if by is not None:
        text = f"{named} was replaced at {moment(by.at)} by rollout {by.plan.id}."
        return Reason(H.REPLACED, text)
    text = f"{named} was put into service in rollout {part.plan.id} at {moment(part.at)}"
    return Reason(H.GONE, f"{text}, and the device has lost it since.")


def _newer(model: ModelNow, part: Part) -> Part | None:
    """What the device took part in since, by which it serves what it does."""
    serves = None if model.active is None else model.active.version
    newer = model.parts[: model.parts.index(part)]
    return next((one for one in newer if one.plan.version == serves), None)


def _failed(part: Part, at: str, why: str) -> Reason:
    end = "timed out" if part.state is S.TIMED_OUT else str(part.state).lower()
    attempts = "" if part.attempt == 1 else f", attempt {part.attempt}"
    text = f"{named_of(part.plan)} {end} {at}, in rollout {part.plan.id}{attempts}{why}."
    if part.plan.state in ROLLOUT_TERMINAL:
        return Reason(H.FAILED, text)
    return Reason(H.FAILED, f"{text} `argosy rollout retry {part.plan.id}` tries once more.")


def cause_words(part: Part) -> str:
    """Why it came to nothing, as the end of a sentence; nothing where that is not known."""
    words = [part.cause.replace("_", " ")] if part.cause else []
    return because(": ".join([*words, *([part.detail] if part.detail else [])]))
