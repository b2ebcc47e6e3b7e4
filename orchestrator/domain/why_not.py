"""Why a device does not serve a version: the first thing that stands in the way, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from orchestrator.domain.overlap import keeps
from orchestrator.domain.rollout import ROLLOUT_TERMINAL
from orchestrator.domain.why_ended import ended
from orchestrator.domain.why_facts import (
    DeviceNow,
    ModelNow,
    Part,
    Plan,
    Reason,
    Turn,
    because,
    moment,
    named_of,
    wave_words,
)
from schemas.device import DeviceState
from schemas.device_why import Hindrance, WhyNot
from schemas.maintenance import for_download, look
from schemas.pace import MaintenanceWindow, Urgency
from schemas.rollout import EXEC_TERMINAL, ExecState, PauseReason, RolloutState, WaveState
from schemas.selector import Facts, parse, refusing, write

H = Hindrance
S = ExecState
R = RolloutState


def why_not(device: DeviceNow, model: ModelNow, version: int, now: datetime) -> WhyNot:
    """Why a device does not serve a version of a model."""
    part = next(iter(_ranked_parts(model, version)), None)
    plan = next(iter(_ranked_plans(model, version)), None)
    if part is not None and plan is not None and _over(part.plan) and not _over(plan):
        part = None  # a newer rollout of it is under way, and leaves the device out
    reason = _of_device(device, version, model)
    if reason is None and part is not None:
        reason = _of_part(device, model, part, now)
    elif reason is None and plan is not None:
        reason = _of_plan(device.facts, plan)
    if reason is None:
        reason = Reason(
            H.NO_ROLLOUT,
            f"No rollout of {model.model}@{version} was made."
            f" `argosy rollout plan {model.model}@{version}` shows one.",
        )
    its = part.plan if part is not None else plan
    return WhyNot(
        version=version,
        code=reason.code,
        text=reason.text,
        rollout=None if its is None else its.id,
        wave=None if part is None else part.wave,
        until=reason.until,
    )


def _over(plan: Plan) -> bool:
    return plan.state in ROLLOUT_TERMINAL


def _ranked_parts(model: ModelNow, version: int) -> list[Part]:
    its = [part for part in model.parts if part.plan.version == version]
    return sorted(its, key=lambda part: _over(part.plan))


def _ranked_plans(model: ModelNow, version: int) -> list[Plan]:
    return sorted((plan for plan in model.plans if plan.version == version), key=_over)


def _of_device(device: DeviceNow, version: int, model: ModelNow) -> Reason | None:
    if device.state is DeviceState.PENDING:
        return Reason(H.PENDING, "The device waits for approval: `argosy device approve`.")
    if device.state is DeviceState.REVOKED:
        since = f" since {moment(device.revoked_at)}" if device.revoked_at else ""
        return Reason(H.REVOKED, f"The device is shut out{since}{because(device.revoke_reason)}.")
    if version in model.revoked:
        why = because(model.revoked[version])
        return Reason(H.VERSION_REVOKED, f"{model.model}@{version} was revoked{why}.")
    return None


def _of_part(device: DeviceNow, model: ModelNow, part: Part, now: datetime) -> Reason:
    if part.state in EXEC_TERMINAL:
        return ended(model, part)
    if part.plan.state is R.DRAFT:
        return Reason(H.DRAFT, f"Its rollout {part.plan.id} is a draft that nobody started.")
    if part.plan.state is R.AWAITING_APPROVAL:
        return Reason(H.APPROVAL, f"Its rollout {part.plan.id} waits for a second person.")
    if part.state is S.SCHEDULED:
        return _scheduled(device, model, part, now)
    return _working(device, part, now)


def _scheduled(device: DeviceNow, model: ModelNow, part: Part, now: datetime) -> Reason:
    plan = part.plan
    held = _plan_holds(plan, part.wave)
    if held is not None:
        return held
    if part.kept is not None:
        text = f"Rollout {plan.id} does not offer it {named_of(plan)}: it is {part.kept}."
        return Reason(H.SUPERSEDED, text)
    if not device.online:
        return Reason(H.OFFLINE, f"{_offline(device)}; {_when_back(model, part)}")
    if part.due_at is not None and part.due_at > now:
        text = f"Attempt {part.attempt} begins at {moment(part.due_at)}{because(part.detail)}."
        return Reason(H.RETRY, text, part.due_at)
    if part.holder is not None:
        return Reason(H.BUSY, f"It works for rollout {part.holder} of another model first.")
    windows = look(for_download(plan.spec.windows), now)
    if not windows.open:
        when = f" opens at {moment(windows.until)}" if windows.until else " opens never again"
        return Reason(H.WINDOW, f"Its maintenance window{when}.", windows.until)
    turn = part.turn
    if turn is not None and turn.room is not None and turn.waiting > turn.room:
        return Reason(H.PACED, _paced(plan, turn))
    return Reason(H.NEXT, f"It is about to be offered {named_of(plan)} by rollout {plan.id}.")


def _when_back(model: ModelNow, part: Part) -> str:
    """What it is offered then: of several rollouts that wait for it the highest has it."""
    mine = part.plan
    others = (
        one.plan
        for one in model.parts
        if one.state is S.SCHEDULED and _plan_holds(one.plan, one.wave) is None
    )
    first = max(others, key=lambda plan: plan.rank, default=mine)
    if first.rank <= mine.rank:
        return f"it is offered {named_of(mine)} when it is back."
    # Once it is over there, it keeps the device from those alone that were started before it.
    later = keeps(first.rank, mine.rank, working=False)
    then = f"not {named_of(mine)}" if later else f"{named_of(mine)} after that"
    ranks = f"rollout {first.id}, which ranks above {mine.id}, waits for it too"
    return f"{ranks}: it is offered {named_of(first)} when it is back, and {then}."


def _paced(plan: Plan, turn: Turn) -> str:
    """What of the pace holds it back at this moment."""
    waits = f"{turn.waiting} devices wait" if turn.waiting > 1 else "it alone waits"
    most = plan.spec.pace.concurrent
    if most is not None and turn.at_work >= most:
        why = f"{turn.at_work} devices are at work for rollout {plan.id}, of at most {most} at once"
        return f"Its turn has not come: {why}; {waits}."
    rate = turn.per_minute
    if rate is None:
        return f"Its turn has not come: rollout {plan.id} goes at {most} at once; {waits}."
    why = f"rollout {plan.id} goes at {rate:g} devices a minute now; {waits}"
    return f"Its turn has not come: {why}, which takes about {math.ceil(turn.waiting / rate)} min."


def _plan_holds(plan: Plan, wave: int) -> Reason | None:
    if plan.state is R.PAUSED:
        by = _PAUSED[plan.pause_reason or PauseReason.OPERATOR]
        return Reason(H.PAUSED, f"Rollout {plan.id} is paused {by}{because(plan.reason)}.")
    if plan.state is R.ROLLING_BACK:
        return Reason(
            H.ROLLING_BACK, f"Rollout {plan.id} is being taken back{because(plan.reason)}."
        )
    if _over(plan):
        text = f"Rollout {plan.id} ended ({plan.state}) before its turn came{because(plan.reason)}."
        return Reason(H.CANCELLED, text)
    if wave < len(plan.waves) and plan.waves[wave].state is WaveState.PENDING:
        first = next(
            (i for i, one in enumerate(plan.waves[:wave]) if one.state is not WaveState.PASSED),
            None,
        )
        waits = "has not begun"
        if first is not None:
            waits = f"waits for wave {first + 1}, which is {plan.waves[first].state}"
        return Reason(
            H.WAVE_PENDING, f"It is in {wave_words(plan, wave)} of {plan.id}, which {waits}."
        )
    return None


_PAUSED = {
    PauseReason.OPERATOR: "by an operator",
    PauseReason.ERROR_THRESHOLD: "as too many devices failed",
    PauseReason.VERDICT_FAILED: "as a wave failed its gates",
    PauseReason.INCONCLUSIVE: "as a wave showed too little to judge it by",
    PauseReason.UNREADABLE: "as the server cannot read its plan any more",
}


def _working(device: DeviceNow, part: Part, now: datetime) -> Reason:
    named = named_of(part.plan)
    until = part.waits_until
    if part.state is S.DEFERRED:
        return _waits(part, for_download(part.plan.spec.windows), "is not fetched yet", now)
    if not device.online or part.state is S.UNKNOWN:
        return Reason(H.OFFLINE, f"{_offline(device)}, in the middle of {named} ({part.state}).")
    if part.state is S.STAGED:
        if part.plan.spec.mode.urgency is Urgency.DOWNLOAD_ONLY:
            text = (
                f"{named} is staged and waits for a word: `argosy rollout activate {part.plan.id}`."
            )
            return Reason(H.WAITS_FOR_WORD, text, until)
        if until is not None or not look(part.plan.spec.windows, now).open:
            return _waits(part, part.plan.spec.windows, "is staged", now)
    if part.state is S.OFFERED:
        text = f"It was offered {named} at {moment(part.at)}, and has not answered yet."
        return Reason(H.UNDER_WAY, text)
    share = "" if part.share is None else f", {part.share:.0%} fetched"
    text = f"It works on {named}: {part.state} since {moment(part.at)}{share}."
    return Reason(H.UNDER_WAY, text)


def _waits(part: Part, windows: Sequence[MaintenanceWindow], where: str, now: datetime) -> Reason:
    """It waits for a window, or longer than for the next: then for what it says itself."""
    opens, until = look(tuple(windows), now), part.waits_until
    named = f"{named_of(part.plan)} {where}"
    if not opens.open and (until is None or (opens.until is not None and until <= opens.until)):
        when = f"opens at {moment(opens.until)}" if opens.until else "opens never again"
        return Reason(H.WINDOW, f"{named}; its maintenance window {when}.", opens.until)
    return Reason(H.DEFERRED, f"{named}; the device {_waiting(part.detail, until)}.", until)


def _waiting(detail: str | None, until: datetime | None) -> str:
    """What a device waits for, in its own words, and until when, which it says too."""
    said = because(detail if until is None else (detail or "").partition(" until ")[0])
    when = "" if until is None else f" until {moment(until)}"
    words = said.removeprefix(": ")
    return f"{words}{when}" if words.startswith("waits ") else f"waits{when}{said}"


def _of_plan(facts: Facts, plan: Plan) -> Reason:
    """Why a rollout does not have the device."""
    spec, named = plan.spec, named_of(plan)
    if plan.unreadable:
        text = f"The server cannot read the plan of rollout {plan.id} of {named} any more"
        return Reason(H.NOT_IN_PLAN, f"{text}, so whom it is for is not known.")
    no = _refusal(facts, plan)
    if no is not None:
        return Reason(H.NOT_TARGETED, f"Rollout {plan.id} of {named} is not for it: {no}.")
    if _over(plan):
        return Reason(
            H.NOT_IN_PLAN, f"Rollout {plan.id} of {named} ended ({plan.state}) without it."
        )
    if plan.state is R.DRAFT:
        return Reason(
            H.DRAFT, f"Rollout {plan.id} of {named} is a draft, which was made without it."
        )
    if spec.dynamic:
        return Reason(H.JOINS, f"It fits rollout {plan.id} of {named}, which takes it in shortly.")
    frozen = f"did not when its plan was frozen, {moment(plan.created_at)}"
    return Reason(H.NOT_IN_PLAN, f"It fits rollout {plan.id} of {named} now, and {frozen}.")


def _refusal(facts: Facts, plan: Plan) -> str | None:
    """Which part of a target says no."""
    spec = plan.spec
    if spec.device_class not in {None, facts.device_class}:
        return f"it is of class {facts.device_class}, not {spec.device_class}"
    lacks = [tag for tag in spec.tags if tag not in facts.tags]
    if lacks:
        return f"it lacks the tag {lacks[0]}"
    where = None if spec.where is None else refusing(parse(spec.where), facts)
    if where is not None:
        return f"it does not match {write(where)}"
    fleet = None if plan.fleet is None else refusing(plan.fleet, facts)
    if fleet is not None:
        return f"it is not in fleet {spec.fleet}, as it does not match {write(fleet)}"
    if spec.exclude is not None and refusing(parse(spec.exclude), facts) is None:
        return f"it is excluded by {spec.exclude}"
    return None


def _offline(device: DeviceNow) -> str:
    if device.last_seen_at is None:
        return "It was never connected"
    return f"It is offline since {moment(device.last_seen_at)}"
