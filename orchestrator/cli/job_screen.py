"""A job as it runs, as a display that redraws itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cli import console
from orchestrator.cli.job_text import (
    best_trial,
    live_parts,
    ordered,
    parameters_text,
    problems_text,
    trains,
    value_text,
    waiting_text,
    words,
)
from schemas.job import JobState, JobView, Live, LogLine, MetricPoint, Trial

_STEPS = (
    (JobState.RUNNING, "train"),
    (JobState.EXPORTING, "export"),
    (JobState.OPTIMIZING, "optimize"),
    (JobState.REGISTERING, "register"),
)
_ORDER = [JobState.QUEUED, *(state for state, _ in _STEPS), JobState.SUCCEEDED]
_UNDONE = {JobState.FAILED, JobState.CANCELLED}  # at a step that nobody noted
_TRAINING = {JobState.QUEUED, JobState.RUNNING}
_BLOCKS = "▁▂▃▄▅▆▇█"
_SPARKS = 40
_BAR = 40
LEVEL_STYLES = {"error": "red", "warning": "yellow", "info": "dim", "debug": "dim"}
_SAID = 8
"""Lines of the log that are shown at once."""

_TRIALS = 12
"""Trials shown at once: those that run and the best of the others."""


@dataclass(slots=True)
class Training:
    """What is known of a job while it is watched.

    live: the newest there ever was. attempt: the one that the points are of. said: the
    newest lines of its log since it has trained.
    """

    view: JobView | None = None
    points: list[MetricPoint] = field(default_factory=list)
    outage: str | None = None
    aside: str | None = None
    live: Live | None = None
    attempt: int = 0
    said: list[LogLine] = field(default_factory=list)

    def rewind(self, view: JobView) -> None:
        """Forget the epochs that a later attempt does again."""
        self.attempt = self.attempt or view.attempt
        if self.points and view.attempt > self.attempt and view.epoch < self.points[-1].epoch:
            self.points = [point for point in self.points if point.epoch < view.epoch]
            self.attempt = view.attempt

    def see(self, view: JobView) -> None:
        """Take a newer look at the job."""
        self.view = view
        self.live = view.live or self.live

    def hear(self, said: Sequence[LogLine]) -> None:
        """Take what the job said."""
        self.said = [*self.said, *said][-_SAID:]

    def __rich__(self) -> RenderableType:
        """The display."""
        view = self.view
        if view is None:
            return Text(self.outage or "")
        lines: list[RenderableType] = [heading(view)]
        lines += [] if view.spec.batch or view.state in _UNDONE else [steps(view)]
        lines += _waiting(view)
        if view.spec.batch is not None:
            lines += _batch(self)
        elif view.trials:
            lines += [*_now(view), trials_table(view), *_best_line(view)]
        elif trains(view.spec) and (self.points or view.state is JobState.RUNNING):
            lines += _training(self)
        if view.state not in _TRAINING:
            lines += [_line(one) for one in self.said]
        if view.problems:
            lines.append(Text(f"  {problems_text(view)}", "yellow"))
        if self.outage:
            lines.append(Text(f"  {self.outage}: trying again", "yellow"))
        if self.aside:
            lines.append(Text(f"  {self.aside}", "dim"))
        return Group(*lines)


def heading(view: JobView) -> Text:
    """Name, id, state and time."""
    text = Text.assemble((view.name, "bold"), "  ", (view.id, "dim"), "  ")
    text.append_text(console.state(view.state))
    if view.attempt > 1:
        text.append(f"  attempt {view.attempt}", "yellow")
    start, end = view.started_at, view.ended_at or datetime.now(UTC)
    if start is not None:
        text.append(f"  {console.duration((end - start).total_seconds())}", "dim")
    return text


def steps(view: JobView) -> Text:
    """The job's steps, with where it stands."""
    at = _ORDER.index(view.state) if view.state in _ORDER else -1
    text = Text("  ")
    for step, name in _STEPS:
        if step is JobState.RUNNING and not trains(view.spec):
            continue
        place = _ORDER.index(step)
        if at > place:
            text.append(f"✓ {name}   ", "green")
        elif at == place:
            text.append(f"● {name}   ", "cyan")
        else:
            text.append(f"○ {name}   ", "dim")
    return text


def _line(line: LogLine) -> Text:
    style = LEVEL_STYLES[line.level]
    return Text(f"  {console.clean(line.text)}", style, no_wrap=True, overflow="ellipsis")


def _waiting(view: JobView) -> list[RenderableType]:
    waits = waiting_text(view)
    if waits is None and view.state is JobState.QUEUED:
        waits = "waiting for an agent to take it"
    return [] if waits is None else [Text(f"  {waits}", "yellow" if view.notice else "dim")]


def _training(training: Training) -> list[RenderableType]:
    view = training.view
    if view is None:
        return []
    live = view.live if view.state is JobState.RUNNING else None
    bars = Table.grid(padding=(0, 1))
    total = view.spec.stop.max_epochs
    ended = view.state not in {JobState.QUEUED, JobState.RUNNING}
    done = total if ended else view.epoch
    bars.add_row(" ", _bar(done, total), Text(f"epoch {view.epoch} of at most {total}"))
    if live is not None and live.total:
        label = Text(f"step {live.done:,} of {live.total:,}", "dim")
        bars.add_row(" ", _bar(live.done, live.total), label)
    lines: list[RenderableType] = [bars]
    if live is not None:
        lines.append(_pairs(live_parts(live)))
    return [*lines, *_figures(training)]


def _bar(done: float, total: float) -> ProgressBar:
    return ProgressBar(
        total=max(total, 1),
        completed=done,
        width=_BAR,
        complete_style="cyan",
        finished_style="green",
    )


def _pairs(pairs: list[tuple[str, str]]) -> Text:
    text = Text("  ")
    for name, value in pairs:
        text.append(f"{name} ", "dim").append(value).append("   ")
    return text


def _figures(training: Training) -> list[RenderableType]:
    view = training.view
    if view is None or not training.points:
        starting = Text("  starting the workers", "dim")
        return [] if view is None or view.live or view.notice else [starting]
    stop = view.spec.stop
    text = Text("  ")
    for name, value in ordered(training.points[-1].values, stop.metric):
        text.append(f"{words(name)} ", "dim").append(value_text(name, value, stop.metric))
        text.append("   ")
    best = view.best.get(stop.metric)
    if best is not None:
        reached = stop.target is not None and best >= stop.target
        text.append("best ", "dim").append(console.percent(best), "green" if reached else "")
        text.append("   ")
    if stop.target is not None:
        text.append("target ", "dim").append(console.percent(stop.target))
    history = [p.values[stop.metric] for p in training.points if stop.metric in p.values]
    label = (f"  {words(stop.metric)}", "dim")
    return [text, Text.assemble("  ", (sparkline(history[-_SPARKS:]), "cyan"), label)]


def sparkline(values: list[float]) -> str:
    """Values as a row of blocks, lowest to highest."""
    if not values:
        return ""
    low, high = min(values), max(values)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((v - low) * scale)] for v in values)


def _batch(training: Training) -> list[RenderableType]:
    live = training.live
    if live is None or not live.total:
        return [Text("  starting the workers", "dim")]
    view = training.view
    done = live.total if view and view.state is JobState.SUCCEEDED else live.done
    bars = Table.grid(padding=(0, 1))
    bars.add_row(" ", _bar(done, live.total), Text(f"{done:,} of {live.total:,} rows"))
    running = view is not None and view.state is JobState.RUNNING
    return [bars, _pairs(live_parts(live, rows=True))] if running else [bars]


def _now(view: JobView) -> list[RenderableType]:
    """Of a sweep: how much of it is done, and the live figures."""
    ended = sum(trial.state in {"done", "stopped", "failed"} for trial in view.trials)
    bars = Table.grid(padding=(0, 1))
    label = Text(f"{ended} of {len(view.trials)} trials")
    bars.add_row(" ", _bar(ended, len(view.trials)), label)
    live = view.live if view.state is JobState.RUNNING else None
    if live is None:
        return [bars]
    trial = [("trial", str(live.trial))] if live.trial else []
    return [bars, _pairs([*trial, *live_parts(live)])]


def shown_trials(trials: tuple[Trial, ...], room: int = _TRIALS) -> list[Trial]:
    """Those that run first, then the best, then the rest, in the order of their numbers."""
    chosen = sorted(
        trials,
        key=lambda t: (t.state != "running", t.best is None, -(t.best or 0.0), t.number),
    )[:room]
    return sorted(chosen, key=lambda trial: trial.number)


def trials_table(view: JobView) -> RenderableType:
    """The trials of a sweep, the best one marked."""
    metric, best = view.spec.stop.metric, best_trial(view)
    table = Table.grid(padding=(0, 2))
    heads = ("", "trial", "state", "epochs", words(metric), "parameters")
    table.add_row(" ", *(Text(head, "dim") for head in heads))
    for trial in shown_trials(view.trials):
        is_best = best is not None and trial.number == best.number
        figure = console.NONE if trial.best is None else value_text(metric, trial.best, metric)
        table.add_row(
            " ",
            Text("●" if is_best else " ", "green"),
            str(trial.number),
            console.state(trial.state),
            str(trial.epochs),
            Text(figure, "green" if is_best else ""),
            Text(parameters_text(trial)),
        )
    more = len(view.trials) - _TRIALS
    rest: list[RenderableType] = [Text(f"    and {more} more", "dim")] if more > 0 else []
    return Group(table, *rest)


def _best_line(view: JobView) -> list[RenderableType]:
    best, metric = best_trial(view), view.spec.stop.metric
    if best is None or best.best is None:
        return []
    pairs = [
        ("best", f"trial {best.number}"),
        (words(metric), value_text(metric, best.best, metric)),
    ]
    if view.spec.stop.target is not None:
        pairs.append(("target", console.percent(view.spec.stop.target)))
    return [_pairs(pairs)]
