"""Why a device serves what it serves, and not something newer. Pure: a snapshot in, words out."""

from __future__ import annotations

from datetime import datetime

from orchestrator.domain.execution import FAILURES
from orchestrator.domain.rollout import ROLLOUT_TERMINAL
from orchestrator.domain.why_ended import cause_words
from orchestrator.domain.why_facts import (
    DeviceNow,
    ModelNow,
    Part,
    because,
    moment,
    named_of,
    target_words,
    wave_words,
)
from orchestrator.domain.why_not import why_not
from schemas.device import ActiveModel
from schemas.device_why import DeviceWhy, ModelWhy, Origin, WhyNot
from schemas.rollout import EXEC_TERMINAL, ExecState

S = ExecState

MAX_MISSING = 4
"""Versions of a model that are spoken of."""

_BROUGHT = frozenset({S.SUCCEEDED, S.PROBATION, S.ALREADY_INSTALLED})


def explain(device: DeviceNow, now: datetime) -> DeviceWhy:
    """Say of each model why the device serves what it does."""
    return DeviceWhy(
        device=device.facts.id,
        state=device.state,
        presence=device.facts.presence,
        models=tuple(_of_model(device, model, now) for model in device.models),
    )


def _of_model(device: DeviceNow, model: ModelNow, now: datetime) -> ModelWhy:
    active = model.active
    part, origin = _origin(model)
    fell = _fell_back(model, part) if origin in {Origin.ROLLOUT, Origin.ROLLBACK} else None
    return ModelWhy(
        model=model.model,
        version=None if active is None else active.version,
        variant=None if active is None else active.variant,
        since=model.since,
        origin=origin,
        rollout=None if part is None else part.plan.id,
        wave=None if part is None else part.wave,
        rule=None if part is None else _rule(part),
        fell_back=None if fell is None else fell.plan.id,
        text=_text(model, part, origin, fell),
        newest=model.newest,
        missing=tuple(_missing(device, model, now)),
    )


def _missing(device: DeviceNow, model: ModelNow, now: datetime) -> list[WhyNot]:
    serves = None if model.active is None else model.active.version
    wanted: set[int] = set() if model.newest is None else {model.newest}
    wanted |= {part.plan.version for part in model.parts if _is_coming(part)}
    wanted |= _tried(model, serves)
    plans = (plan for plan in model.plans if plan.state not in ROLLOUT_TERMINAL)
    wanted |= {plan.version for plan in plans if serves is None or plan.version > serves}
    versions = sorted(wanted - {serves}, reverse=True)[:MAX_MISSING]
    return [
        why_not(device, model, version, now)
        for version in versions
        # What is older than what it serves is missed only where a rollout would bring it.
        if serves is None or version > serves or _comes(model, version)
    ]


def _tried(model: ModelNow, serves: int | None) -> set[int]:
    """Newer versions that came to nothing there since what it serves was brought."""
    brought = next((i for i, one in enumerate(model.parts) if one.plan.version == serves), None)
    found = {one.plan.version for one in model.parts[:brought] if _came_to_nothing(one)}
    return {version for version in found if serves is None or version > serves}


def _came_to_nothing(part: Part) -> bool:
    return part.late is not S.SUCCEEDED and bool({part.state, part.late} & FAILURES)


def _is_coming(part: Part) -> bool:
    return part.state not in EXEC_TERMINAL and part.plan.state not in ROLLOUT_TERMINAL


def _comes(model: ModelNow, version: int) -> bool:
    return any(_is_coming(part) for part in model.parts if part.plan.version == version)


def _origin(model: ModelNow) -> tuple[Part | None, Origin]:
    active = model.active
    if active is None:
        return None, Origin.NONE
    if model.strange:
        return None, Origin.DRIFT
    undone = next((part for part in model.parts if part.undone_by_hand), None)
    brought = next((part for part in model.parts if _brought(part, active)), None)
    if undone is not None and (brought is None or undone.at >= brought.at):
        return undone, Origin.BY_HAND
    if brought is None:
        return None, Origin.UNKNOWN
    return brought, Origin.ROLLOUT if brought.plan.takes_back is None else Origin.ROLLBACK


def _fell_back(model: ModelNow, brought: Part | None) -> Part | None:
    """The newer version from which the device went back by itself to what it serves, if any.

    By that it has served it without a break only since then.
    """
    if brought is None or model.since is None or model.since <= brought.at:
        return None
    newer = model.parts[: model.parts.index(brought)]
    return next((one for one in newer if one.undone_by_itself), None)


def _brought(part: Part, active: ActiveModel) -> bool:
    there = part.state in _BROUGHT or part.late is S.SUCCEEDED
    return there and part.late is not S.ROLLED_BACK and part.plan.version == active.version


def _rule(part: Part) -> str:
    wave, plan = wave_words(part.plan, part.wave), part.plan
    if plan.experiment is not None:  # it chose the devices: the target says little
        return f"{wave}, of a rollout for devices of experiment {plan.experiment}"
    return f"{wave}, of a rollout for {target_words(plan.spec)}"


def _text(model: ModelNow, part: Part | None, origin: Origin, fell: Part | None) -> str:
    active = model.active
    if active is None:
        return f"It serves no version of {model.model}."
    since = "" if model.since is None else f" since {moment(model.since)}"
    serves = f"It serves {model.model}@{active.version} ({active.variant}){since}"
    if active.version in model.revoked:
        serves += f", which was revoked since{because(model.revoked[active.version])}"
    if origin is Origin.DRIFT:
        return (
            f"{serves}, which it was never given: somebody put it there, or its records are gone."
        )
    if part is None:
        return f"{serves}; no rollout on record brought it."
    plan = part.plan
    if fell is not None:
        tried = f"{named_of(fell.plan)} of rollout {fell.plan.id}"
        why = cause_words(fell).removeprefix(": ")
        back = f"{serves}, when it put it back by itself, as {tried} did not stay"
        text = f"{back} ({why})" if why else back
        return f"{text}. Rollout {plan.id} had brought it: {_rule(part)}."
    match origin:
        case Origin.BY_HAND:
            gone = f"{plan.spec.model}@{plan.version} of rollout {plan.id}"
            return f"{serves}: {gone} was put back by hand, at the device."
        case Origin.ROLLBACK:
            gone = f"{plan.spec.model}@{plan.takes_back}"
            of = f" of rollout {plan.rollback_of}" if plan.rollback_of else ", which was revoked"
            return f"{serves}, as rollout {plan.id} took back {gone}{of}."
        case _:
            found = ", which found it there" if part.state is S.ALREADY_INSTALLED else ""
            trial = " It is on probation." if part.state is S.PROBATION else ""
            return f"{serves}, by rollout {plan.id}{found}: {_rule(part)}.{trial}"
