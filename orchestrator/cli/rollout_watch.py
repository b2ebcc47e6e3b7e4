"""A rollout as it spreads: waves, their devices and, once judged, the evidence."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from orchestrator.cli import console
from orchestrator.cli.rollout_ends import outcome_text, served
from orchestrator.cli.rollout_ends import took as seconds_of
from orchestrator.cli.rollout_evidence import lines as evidence_lines
from orchestrator.cli.rollout_gates import gate_facts
from orchestrator.cli.rollout_tree import (
    JUDGED,
    ended,
    rollout_tree,
    states_of,
    unjudged,
    wave_title,
)
from orchestrator.client import Argosy
from schemas.errors import Exit
from schemas.rollout import EXEC_TERMINAL, ExecState, PauseReason, RolloutState, WaveState
from schemas.rollout_view import ExecutionView, RolloutView, WaveView

_MANY = 50
"""Devices above which lines tell of troubles and counts only."""

_ON = frozenset({ExecState.SUCCEEDED, ExecState.ALREADY_INSTALLED})
_TROUBLE = EXEC_TERMINAL - _ON


_CHOICES = {
    "promote": "the wave passes as it is",
    "resume": "the wave is judged anew, by more evidence",
    "retry": "devices where it came to nothing try again",
    "edit": "other gates: `resume` judges by those",
    "rollback": "devices get what they served before",
    "abort": "it ends, and devices keep what they serve",
}
_FROM_BEFORE = frozenset({"promote", "resume", "rollback", "abort"})
"""Acts at a server that names none; it refuses to resume what failures stopped."""


def outcome(view: RolloutView) -> Exit:
    """The exit code for a rollout that was watched until it settled."""
    if view.state is RolloutState.SUCCEEDED:
        return Exit.OK
    return Exit.FAILED if view.state is RolloutState.ABORTED else Exit.GATE_FAILED


def print_rollout(view: RolloutView) -> None:
    """Print a rollout for people; of one with many devices those that had troubles first."""
    many = sum(wave.size for wave in view.waves) > _MANY
    console.out().print(rollout_tree(view, room=_MANY if many else None), soft_wrap=True)
    if view.ended_at is None and view.takes_back is None:
        for name, said in gate_facts(view.spec):
            console.out().print(Text(f"{name:<10}  {console.clean(said)}", "dim"), soft_wrap=True)
    if many:
        console.say(f"every device: `argosy rollout devices {view.id}`", style="dim")
    if view.state is RolloutState.PAUSED:
        _say_choices(view)


@dataclass(slots=True)
class _Display:
    """What is redrawn."""

    view: RolloutView | None = None
    outage: str | None = None

    def __rich__(self) -> RenderableType:
        if self.view is None:
            return Text(self.outage or "")
        room = max(console.err().height - 4, 8)
        return rollout_tree(self.view, room=room, note=self.outage)


@dataclass(slots=True)
class Lines:
    """Says what changed, where nothing is redrawn."""

    rollout: tuple[RolloutState, PauseReason | None] | None = None
    waves: dict[int, str] = field(default_factory=dict)
    executions: dict[str, tuple[int, ExecState]] = field(default_factory=dict)
    tenths: dict[int, int] = field(default_factory=dict)
    passed_over: set[str] = field(default_factory=set)
    passed_over_told: int = 0
    outage: bool = False

    def lost(self, why: str) -> None:
        """The platform does not answer."""
        if not self.outage:
            console.stamped(f"{why}: trying again")
        self.outage = True

    def update(self, view: RolloutView) -> None:
        """Say what is new in ``view``."""
        self.outage = False
        if self.rollout is None:
            self._state(view)
        is_large = sum(wave.size for wave in view.waves) > _MANY
        for wave in view.waves:
            for execution in wave.executions:
                if not is_large or execution.state in _TROUBLE:
                    self._execution(execution)
            if is_large:
                self._progress(wave, view)
            self._wave(wave, view)
        self._passed_over(view)
        self._state(view)

    def _passed_over(self, view: RolloutView) -> None:
        """Those that a stop came to before an offer, together: not each of them is news."""
        counted = sum(wave.progress.not_offered for wave in view.waves)
        many = max(len(self.passed_over), counted if self.passed_over else 0)
        if more := many - self.passed_over_told:
            devices = "1 device" if more == 1 else f"{more} devices"
            console.stamped(f"  {devices} that had been offered nothing", "left out")
        self.passed_over_told = many

    def _progress(self, wave: WaveView, view: RolloutView) -> None:
        """In a large fleet: a wave's count, at each tenth of it."""
        done = ended(wave)
        tenth = 10 * done // max(1, wave.size)
        if tenth > self.tenths.get(wave.index, 0):
            self.tenths[wave.index] = tenth
            console.stamped(f"{wave_title(wave, view)}: {done} have ended")

    def _state(self, view: RolloutView) -> None:
        now = (view.state, view.pause_reason)
        if now != self.rollout:
            why = f"({view.pause_reason})" if view.pause_reason else ""
            name = f"{view.spec.model}@{view.spec.version}"
            console.stamped(name, view.id, console.state(view.state), why)
        self.rollout = now

    def _wave(self, wave: WaveView, view: RolloutView) -> None:
        now = unjudged(wave, view) or wave.state.value
        if self.waves.get(wave.index) == now:
            return
        self.waves[wave.index] = now
        if wave.state is WaveState.PENDING:
            return
        console.stamped(wave_title(wave, view), console.state(now))
        if wave.state in JUDGED:
            for line in evidence_lines(wave.evidence):
                console.stamped(Text("  ").append_text(line))

    def _execution(self, execution: ExecutionView) -> None:
        now, was = (execution.attempt, execution.state), self.executions.get(execution.id)
        if was == now:
            return
        self.executions[execution.id] = now
        if execution.state is ExecState.SCHEDULED:
            return
        waited = was is not None and was[1] is ExecState.SCHEDULED
        if execution.state is ExecState.CANCELLED and (waited or execution.variant is None):
            self.passed_over.add(execution.id)
            return
        cause = f"({execution.cause})" if execution.cause else ""
        size = ""
        if execution.state is ExecState.DOWNLOADING and execution.bytes_total:
            size = console.size(execution.bytes_total)
        elif execution.state is ExecState.SUCCEEDED and execution.bytes_fetched:
            size = f"{console.size(execution.bytes_fetched)} fetched"
        console.stamped(f"  {execution.device}", console.state(execution.state), cause, size)


def watch_rollout(
    argosy: Argosy, rollout: str, timeout: float | None = None, *, back: bool = False
) -> RolloutView:
    """Show a rollout until it settles, then say how.

    Args:
        argosy: the platform.
        rollout: which.
        timeout: seconds; None for any.
        back: whoever watches has asked for it to be rolled back.

    Returns:
        The rollout as it settled.

    Raises:
        WaitTimeoutError: it did not settle in time.
    """
    display, lines = _Display(), Lines()
    live = Live(display, console=console.err(), refresh_per_second=8) if console.is_live() else None
    frame: AbstractContextManager[object] = live or nullcontext()
    with frame:
        for look in argosy.rollouts.follow(rollout, timeout):
            display.outage = look.outage.detail if look.outage else None
            display.view = look.value or display.view
            if live is not None:
                continue
            if look.value is not None:
                lines.update(look.value)
            elif look.outage is not None:
                lines.lost(look.outage.detail)
    if display.view is None:  # follow() yields a view or raises
        raise AssertionError
    say_end(display.view, back=back)
    return display.view


def say_end(view: RolloutView, *, back: bool = False) -> None:
    """One line on how a rollout settled, and one on what to do next.

    Args:
        view: the rollout as it settled.
        back: it was to be rolled back.
    """
    took = console.duration(seconds_of(view))
    name = f"{view.spec.model}@{view.spec.version}"
    if view.state is RolloutState.SUCCEEDED:
        console.say(_succeeded(view, name, took))
    elif view.state is RolloutState.ROLLED_BACK and back and not view.left:
        console.say(Text(f"✓ {name} was rolled back, {took} after its start", "green"))
    elif view.state is RolloutState.PAUSED:
        console.say(Text(f"✗ {name} is paused after {took}: {view.pause_reason}", "yellow"))
        for wave in view.waves:
            if wave.state not in {WaveState.FAILED, WaveState.INCONCLUSIVE}:
                continue
            for line in evidence_lines(wave.evidence):
                console.say(Text(f"  wave {wave.index + 1}: ").append_text(line))
        _say_choices(view)
    else:
        word = view.state.value.lower().replace("_", " ")
        console.say(Text(f"✗ {name} was {word} after {took}", "red"))
        if view.state is RolloutState.ABORTED and (ending := outcome_text(view)) is not None:
            console.say(f"  {ending}")


def _succeeded(view: RolloutView, name: str, took: str) -> Text:
    """As in ``✓ digits@2 is on 57 devices``; what became of the others if it is not on all."""
    total = sum(wave.size for wave in view.waves)
    on = sum(states_of(wave)[state] for wave in view.waves for state in _ON)
    if view.outcome:
        on, total = served(view)
    devices = f"{total} device{'' if total == 1 else 's'}"
    if on == total:
        return Text(f"✓ {name} is on {devices}, after {took}", "green")
    others = (outcome_text(view) or "").partition(", ")[2]
    text = Text(f"✓ {name} is on {on} of {devices}, after {took}", "yellow")
    return text.append(f": {others}") if others else text


def _say_choices(view: RolloutView) -> None:
    """What an operator may do with a rollout that is paused."""
    if view.pause_reason is PauseReason.OPERATOR:
        console.say(f"  go on with `argosy rollout resume {view.id}`", style="dim")
        return
    if view.pause_reason is PauseReason.UNREADABLE:
        what = f"`argosy rollout edit {view.id}` says anew what cannot be read"
        console.say(f"  {what}; or `argosy rollout abort {view.id}`", style="dim")
        return
    console.say(f"  all figures: `argosy rollout get {view.id} --why`", style="dim")
    console.say("  decide with `argosy rollout ACT`, where ACT is one of", style="dim")
    failed = view.pause_reason is PauseReason.ERROR_THRESHOLD
    offered = view.acts or _FROM_BEFORE - ({"resume"} if failed else set())
    for act, what in _CHOICES.items():
        if act in offered:
            console.say(f"    {act:<9} {what}", style="dim")
