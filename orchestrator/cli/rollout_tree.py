"""A rollout drawn as a tree that fits the screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from orchestrator.cli import console
from orchestrator.cli.rollout_ends import absent_text, outcome_text, served, took
from orchestrator.cli.rollout_evidence import lines
from orchestrator.cli.rollout_plan_text import pace_text
from orchestrator.cli.rollout_waits import device_waits, wave_waits
from schemas.rollout import EXEC_TERMINAL, ExecState, RolloutState, Shadow, WaveState
from schemas.rollout_view import ExecutionView, Progress, RolloutView, VariantShare, WaveView

_GOOD = frozenset({ExecState.SUCCEEDED, ExecState.ALREADY_INSTALLED})
_WAITING = frozenset({ExecState.SCHEDULED, ExecState.OFFERED})
JUDGED = frozenset({WaveState.PASSED, WaveState.FAILED, WaveState.INCONCLUSIVE})
_BAR = 20
_WORDS = 80
"""Characters of a device's own words, where the screen is small."""
_KINDS = ("done", "fetched")
_FEW = 3
"""Devices that a wave shows even where there is no room, and rows of a preview."""


def rollout_tree(view: RolloutView, *, room: int | None, note: str | None = None) -> RenderableType:
    """Draw a rollout.

    Args:
        view: with its waves.
        room: lines on the screen; None draws every device.
        note: a warning below it.
    """
    tree = Tree(_title(view), guide_style="dim")
    for said in _of_all(view):
        tree.add(said)
    for wave in view.waves:
        if is_left_behind(wave):
            continue
        branch = tree.add(_wave_line(wave, view))
        shown = _shown(wave, view, room)
        for execution in shown:
            branch.add(_device_line(execution, whole=room is None))
        if wave.size > len(shown):
            branch.add(_summary(wave, shown))
        if wave.evidence and wave.state not in {WaveState.PENDING, WaveState.RUNNING}:
            for line in lines(wave.evidence):
                branch.add(line)
    for share in view.preview[: None if room is None else _FEW]:
        tree.add(_share_line(share))
    return Group(tree, Text(f"{note}: trying again", "yellow")) if note else tree


def _title(view: RolloutView) -> Text:
    text = Text.assemble((f"{view.spec.model}@{view.spec.version}", "bold"), "  ")
    text.append(view.id, "dim").append("  ").append_text(console.state(view.state))
    if view.pause_reason:
        text.append(f" ({view.pause_reason})", "yellow")
    text.append(f"  {console.duration(took(view))}", "dim")
    if len(view.waves) > 1:
        text.append_text(_bytes([wave.progress for wave in view.waves]))
    return text


def _now(view: RolloutView) -> str:
    """What its pace comes to at this moment."""
    now = view.pace_now
    if now is None:
        return ""
    parts = [] if now.per_minute is None else [f"{now.per_minute:g} a minute"]
    parts.append(f"{now.at_work} at work")
    full = ", no room for more" if now.room == 0 else ""
    return f"; now {', '.join(parts)}{full}"


def _of_all(view: RolloutView) -> Iterator[Text]:
    """What holds for all of its waves."""
    if view.reason:
        yield Text(console.clean(view.reason), "yellow")
    if (ending := outcome_text(view)) is not None:
        good, of = served(view)
        yield Text(ending, "green" if good == of else "yellow")
    if (waits := absent_text(view)) is not None:
        yield Text(waits, "yellow")
    if view.unreadable and view.unreadable[0] not in (view.reason or ""):
        said = "; ".join(view.unreadable)
        yield Text(f"the server cannot read its plan any more: {console.clean(said)}", "yellow")
    pace = pace_text(view.spec)
    if pace is not None and view.ended_at is None:
        yield Text(f"pace: {pace}{_now(view)}", "dim")
    if view.spec.dynamic and view.state is RolloutState.RUNNING:
        until = f"until `argosy rollout finish {view.id}`"
        yield Text(f"dynamic: whoever comes to match joins, {until}", "dim")
    yield from _back_lines(view)
    if view.spec.shadow is not None:
        yield _shadow_line(view.spec.shadow)


def _back_lines(view: RolloutView) -> Iterator[Text]:
    """Of a rollout that is taken back: by which others, and who serves its version still."""
    if view.takes_back is not None:
        of = f"of {view.rollback_of}" if view.rollback_of else "which was revoked"
        yield Text(f"takes {view.spec.model}@{view.takes_back} back, {of}", "dim")
    if view.rollbacks:
        yield Text(f"taken back by {', '.join(view.rollbacks)}", "dim")
    if view.left:
        counts = ", ".join(f"{n} {why}" for why, n in view.left.items())
        total = sum(view.left.values())
        name = f"{view.spec.model}@{view.spec.version}"
        who = (
            f"1 device still serves {name}" if total == 1 else f"{total} devices still serve {name}"
        )
        yield Text(f"{who}: {counts}", "yellow")


def _shadow_line(shadow: Shadow) -> Text:
    """As in ``shadow: 1m 00s beside the version that serves, agreement ≥ 90.0 % of 50, …``."""
    text = Text(f"shadow: {console.duration(shadow.seconds)} beside the version that serves")
    if shadow.min_agreement is not None:
        text.append(f", agreement ≥ {console.percent(shadow.min_agreement)}")
    text.append(f" of {shadow.min_compared}, {console.percent(shadow.cpu_share)} of a core")
    text.stylize("dim")
    return text


def wave_title(wave: WaveView, view: RolloutView) -> str:
    """As in ``wave 1 of 2, 1 device``."""
    devices = "1 device" if wave.size == 1 else f"{wave.size} devices"
    return f"wave {wave.index + 1} of {len(view.waves)}, {devices}"


def is_left_behind(wave: WaveView) -> bool:
    """Whether all who were late for the others were put into another one by now."""
    return not wave.size and (wave.joiners or wave.stragglers)


def _wave_line(wave: WaveView, view: RolloutView) -> Text:
    text = Text(wave_title(wave, view)).append("  ").append_text(_wave_state(wave, view))
    if wave.size > 1 and wave.state is not WaveState.PENDING:
        text.append(f"  {ended(wave)}/{wave.size}", "dim")
    waits = wave_waits(wave, view, datetime.now(UTC))
    if waits is not None:
        text.append(f"  {waits}", "yellow")
    elif nobody_there(wave):
        text.append("  waits: none of its devices is there", "yellow")
    return text.append_text(_bytes([wave.progress]))


def _wave_state(wave: WaveView, view: RolloutView) -> Text:
    """Its state; of a rollout that was stopped before it was judged, how far it came."""
    word = unjudged(wave, view)
    return console.state(wave.state) if word is None else Text(word, "dim")


def unjudged(wave: WaveView, view: RolloutView) -> str | None:
    """How far a wave came that will not be judged any more; None where it was, or may be."""
    stopped = view.ended_at is not None or view.state is RolloutState.ROLLING_BACK
    if not stopped or wave.state in JUDGED:
        return None
    return "never begun" if wave.state is WaveState.PENDING else "not judged"


def nobody_there(wave: WaveView) -> bool:
    """Whether a wave cannot even begin, as it offers to whoever is there."""
    waits_for_time = any(one.due_at or one.waits_for for one in wave.executions)
    only = set(+states_of(wave)) == {ExecState.SCHEDULED}
    return wave.state is WaveState.RUNNING and only and not waits_for_time


def states_of(wave: WaveView) -> Counter[ExecState]:
    """How many devices of a wave are in each state, also where not all are listed."""
    return Counter(wave.progress.states or [one.state for one in wave.executions])


def ended(wave: WaveView) -> int:
    """How many devices of a wave are done with it; who was never offered anything is not."""
    done = sum(n for state, n in states_of(wave).items() if state in EXEC_TERMINAL)
    return done - wave.progress.not_offered


def _bytes(progress: Sequence[Progress]) -> Text:
    """As in ``1.2 MB of 4.0 MB, 0.9 MB fetched``; empty before a byte is known of."""
    total = sum(one.bytes_total for one in progress)
    if not total:
        return Text()
    done, fetched = (sum(getattr(one, f"bytes_{name}") for one in progress) for name in _KINDS)
    parts = f"  {console.size(done)} of {console.size(total)}, {console.size(fetched)} fetched"
    return Text(parts, "dim")


def _shown(wave: WaveView, view: RolloutView, room: int | None) -> list[ExecutionView]:
    if room is None:
        return list(wave.executions)
    fixed = 1 + 4 * len(view.waves)
    needed = sum(len(w.executions) for w in view.waves)
    if needed + fixed <= room:
        return list(wave.executions)
    share = max(_FEW, (room - fixed) // max(1, len(view.waves)))
    return sorted(wave.executions, key=_interest)[:share]


def _interest(execution: ExecutionView) -> int:
    if execution.state in EXEC_TERMINAL:
        return 2 if execution.state in _GOOD else 0
    return 3 if execution.state in _WAITING else 1


def _summary(wave: WaveView, shown: list[ExecutionView]) -> Text:
    counts = states_of(wave)
    counts.subtract(execution.state for execution in shown)
    counts = +counts  # without those of which none is left
    text = Text(f"and {counts.total()} more: ", "dim")
    parts = [Text(f"{n} ", "dim").append_text(console.state(s)) for s, n in counts.most_common(4)]
    return text.append_text(Text(", ").join(parts))


def _share_line(share: VariantShare) -> Text:
    """As in ``class cam: 3 devices would get int8, 1.24 ms by estimate``."""
    devices = "1 device" if share.devices == 1 else f"{share.devices} devices"
    text = Text.assemble((f"class {share.device_class}: ", "dim"), f"{devices} would get ")
    if share.variant is None:
        return text.append("nothing", "red").append(f"  {console.clean(share.reason or '')}", "dim")
    text.append(share.variant, "bold")
    if share.p50_ms is None:
        return text.append(", not measured yet", "dim")
    how = "by estimate" if share.estimated else "measured there"
    return text.append(f", {console.ms(share.p50_ms)} {how}", "dim")


def _device_line(execution: ExecutionView, *, whole: bool) -> Text:
    state = execution.state
    mark, style = "○", "dim"
    if state in _GOOD:
        mark, style = "✓", "green"
    elif state in EXEC_TERMINAL:
        mark, style = "✗", "red"
    elif state not in _WAITING:
        mark, style = "●", "cyan"
    text = Text.assemble((f"{mark} ", style), execution.device, "  ")
    text.append(f"{execution.variant or '':<8}", "dim").append(" ")
    text.append_text(console.state(state))
    if execution.attempt > 1:
        text.append(f"  attempt {execution.attempt}", "yellow")
    if state is ExecState.DOWNLOADING and execution.bytes_total:
        text.append("  ").append_text(_download(execution.bytes_done or 0, execution.bytes_total))
    elif execution.bytes_fetched and state in _GOOD:
        text.append(f"  {console.size(execution.bytes_fetched)} fetched", "dim")
    return text.append_text(_reason(execution, whole=whole))


def _reason(execution: ExecutionView, *, whole: bool) -> Text:
    """Why it stands where it does, where there is something to be said."""
    state, text = execution.state, Text()
    if execution.waits_for:
        text.append(f"  waits for {execution.waits_for}", "yellow")
    waits = device_waits(execution)
    if waits is not None:
        return text.append(f"  {waits[: None if whole else _WORDS]}", "dim")
    if execution.cause:
        text.append(f"  {execution.cause}", "red")
        if execution.detail:
            text.append(f": {console.clean(execution.detail)[:_WORDS]}", "dim")
    elif execution.detail and state in EXEC_TERMINAL - _GOOD:
        # Each variant has a reason of its own, so all of it where there is room.
        all_of_it = whole and state is ExecState.NO_VARIANT
        text.append(f"  {console.clean(execution.detail)[: None if all_of_it else _WORDS]}", "dim")
    return text


def _download(done: int, total: int) -> Text:
    filled = round(_BAR * min(1.0, done / total))
    text = Text("━" * filled, "cyan").append("━" * (_BAR - filled), "dim")
    return text.append(f" {console.size(done)} of {console.size(total)}", "not dim")
