"""A job as it runs, as lines, where nothing is redrawn; and how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from orchestrator.cli import console
from orchestrator.cli.job_screen import LEVEL_STYLES, Training
from orchestrator.cli.job_text import (
    best_trial,
    cost_text,
    live_parts,
    ordered,
    parameters_text,
    problems_text,
    usage_text,
    value_text,
    waiting_text,
    words,
)
from schemas.job import TERMINAL_JOB_STATES, JobState, JobView, LogLine, MetricPoint

LIVE_SECONDS = 10.0
"""The least time between two lines on how it does just now."""


@dataclass(slots=True)
class Lines:
    """What was already said. now: the clock."""

    now: Callable[[], float] = time.monotonic
    state: tuple[JobState, int] | None = None
    waits: str | None = None
    outage: bool = False
    problems: bool = False
    trials: dict[int, str] = field(default_factory=dict)
    live_at: float | None = None

    def update(
        self, training: Training, fresh: Sequence[MetricPoint], said: Sequence[LogLine] = ()
    ) -> None:
        """Say what is new. said: by the job itself, once it has trained."""
        if training.outage and not self.outage:
            console.stamped(f"{training.outage}: trying again")
        self.outage = training.outage is not None
        view = training.view
        if view is None:
            return
        if view.state in {JobState.QUEUED, JobState.RUNNING}:
            self._state(view)
        for point in fresh:
            _epoch(view, point)
        self._state(view)  # beyond training: its epochs came before
        for line in said:
            console.stamped(Text(f"  {console.clean(line.text)}", LEVEL_STYLES[line.level]))
        self._waits(view)
        self._problems(view)
        self._trials(view)
        self._live(view)

    def _state(self, view: JobView) -> None:
        if (view.state, view.attempt) != self.state and view.state not in TERMINAL_JOB_STATES:
            again = f"  attempt {view.attempt}" if view.attempt > 1 else ""
            console.stamped(view.name, view.id, console.state(view.state), again)
        self.state = (view.state, view.attempt)

    def _waits(self, view: JobView) -> None:
        # The time that is left changes at each look; what it waits for does not.
        what = view.notice or (f"number {view.position}" if view.position else None)
        text = waiting_text(view)
        if text and what != self.waits:
            console.stamped(f"waits: {text}")
        self.waits = what

    def _problems(self, view: JobView) -> None:
        if view.problems and not self.problems:
            console.stamped(Text(problems_text(view) or "", "yellow"))
        self.problems = bool(view.problems)

    def _trials(self, view: JobView) -> None:
        for trial in view.trials:
            if self.trials.get(trial.number) != trial.state and trial.state != "waiting":
                best = "" if trial.best is None else f"best {console.percent(trial.best)}"
                epochs = f"{trial.epochs} epochs" if trial.epochs else ""
                why = " ".join(console.clean(trial.detail or "").split())
                parts = [epochs, best, parameters_text(trial), why]
                text = "  ".join(part for part in parts if part)
                console.stamped(f"trial {trial.number}", console.state(trial.state), f" {text}")
            self.trials[trial.number] = trial.state

    def _live(self, view: JobView) -> None:
        live, now = view.live, self.now()
        if live is None or view.state is not JobState.RUNNING:
            return
        if self.live_at is not None and now - self.live_at < LIVE_SECONDS:
            return
        self.live_at = now
        is_batch = view.spec.batch is not None
        unit = "rows" if is_batch else "steps"
        where = [f"epoch {live.epoch}"] if live.epoch and not is_batch else []
        where += [f"trial {live.trial}"] if live.trial else []
        where += [f"{live.done:,} of {live.total:,} {unit}"] if live.total else []
        parts = [f"{name} {value}" for name, value in live_parts(live, rows=is_batch)]
        console.stamped(Text("  ".join([*where, *parts]), "dim"))


def _epoch(view: JobView, point: MetricPoint) -> None:
    stop = view.spec.stop
    parts = [
        f"{words(name)} {value_text(name, value, stop.metric)}"
        for name, value in ordered(point.values, stop.metric)
    ]
    target = f"  target {console.percent(stop.target)}" if stop.target is not None else ""
    trial = f"trial {point.trial}  " if point.trial else ""
    console.stamped(f"{trial}epoch {point.epoch}  {'  '.join(parts)}{target}")


def say_end(training: Training) -> None:
    """One line on how a job ended, one on what it used, one on what to do next."""
    view = training.view
    if view is None:
        return
    took = ""
    if view.started_at and view.ended_at:
        took = f" in {console.duration((view.ended_at - view.started_at).total_seconds())}"
    if view.state is JobState.SUCCEEDED:
        _succeeded(view, took)
    else:
        _not_succeeded(view, took)
    used = ", ".join(text for text in (usage_text(view.usage), cost_text(view.cost)) if text)
    if used:
        console.say(f"  used {used}", style="dim")


def _succeeded(view: JobView, took: str) -> None:
    if view.spec.batch is not None:
        text = f"✓ succeeded{took}: {view.detail or 'done'}; in {view.spec.batch.output}"
        console.say(Text(console.clean(text), "green"))
        return
    metric = view.spec.stop.metric
    best = view.best.get(metric)
    figure = f", {metric} {console.percent(best)}" if best is not None else ""
    made = f"{view.model}@{view.version}" if view.version else "no version"
    console.say(Text(f"✓ succeeded{took}: {made}{figure}", "green"))
    trial = best_trial(view)
    if trial is not None:
        text = (
            f"  trial {trial.number} of {len(view.trials)} was the best: {parameters_text(trial)}"
        )
        console.say(text, style="dim")
    console.say(f"  see it with `argosy model get {made}`", style="dim")


def _not_succeeded(view: JobView, took: str) -> None:
    why = f": {view.cause}" if view.cause else ""
    detail = f": {console.clean(view.detail)}" if view.detail else ""
    word = "cancelled" if view.state is JobState.CANCELLED else "failed"
    style = "yellow" if view.state is JobState.CANCELLED else "red"
    console.say(Text(f"✗ {word}{took}{why}{detail}", style))
    console.say(f"  what it printed: `argosy job logs {view.id}`", style="dim")
