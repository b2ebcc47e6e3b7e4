"""A job as it trains: a display that redraws itself, or lines as they happen."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cli import console
from orchestrator.client import Argosy
from schemas.job import TERMINAL_JOB_STATES, JobState, JobView, LogLine, MetricPoint

_STEPS = (
    (JobState.RUNNING, "train"),
    (JobState.EXPORTING, "export"),
    (JobState.OPTIMIZING, "optimize"),
    (JobState.REGISTERING, "register"),
)
_ORDER = [JobState.QUEUED, *(state for state, _ in _STEPS), JobState.SUCCEEDED]
_BLOCKS = "▁▂▃▄▅▆▇█"
_SPARKS = 40


@dataclass(slots=True)
class Training:
    """What is known of a job while it is watched."""

    view: JobView | None = None
    points: list[MetricPoint] = field(default_factory=list)
    outage: str | None = None
    aside: str | None = None

    def __rich__(self) -> RenderableType:
        """The display."""
        if self.view is None:
            return Text(self.outage or "")
        lines: list[RenderableType] = [heading(self.view), steps(self.view)]
        if self.view.state is JobState.QUEUED:
            lines.append(Text("  waiting for an agent to take it", "dim"))
        if self.points or self.view.state is JobState.RUNNING:
            lines += [_bar(self.view), _figures(self)]
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
        place = _ORDER.index(step)
        if at > place:
            text.append(f"✓ {name}   ", "green")
        elif at == place:
            text.append(f"● {name}   ", "cyan")
        else:
            text.append(f"○ {name}   ", "dim")
    return text


def _bar(view: JobView) -> RenderableType:
    total = view.spec.stop.max_epochs
    done = view.state not in {JobState.QUEUED, JobState.RUNNING}
    row = Table.grid(padding=(0, 1))
    bar = ProgressBar(
        total=total,
        completed=total if done else view.epoch,
        width=40,
        complete_style="cyan",
        finished_style="green",
    )
    row.add_row(" ", bar, Text(f"epoch {view.epoch} of at most {total}"))
    return row


def ordered(values: dict[str, float], metric: str) -> list[tuple[str, float]]:
    """The judged metric first, then losses, then other accuracies; not what was timed."""
    first = [metric] if metric in values else []
    losses = sorted(k for k in values if "loss" in k and k != metric)
    shares = sorted(k for k in values if "acc" in k and k != metric)
    return [(name, values[name]) for name in [*first, *losses, *shares]]


def _words(name: str) -> str:
    return console.clean(name).replace("_", " ")


def value_text(name: str, value: float, metric: str) -> str:
    """A metric's value: a percentage where it is a share."""
    is_share = name == metric or "acc" in name
    return console.percent(value) if is_share and 0 <= value <= 1 else f"{value:.4g}"


def sparkline(values: list[float]) -> str:
    """Values as a row of blocks, lowest to highest."""
    if not values:
        return ""
    low, high = min(values), max(values)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((v - low) * scale)] for v in values)


def _figures(training: Training) -> RenderableType:
    view = training.view
    if view is None or not training.points:
        return Text("  starting the workers", "dim")
    stop = view.spec.stop
    text = Text("  ")
    for name, value in ordered(training.points[-1].values, stop.metric):
        text.append(f"{_words(name)} ", "dim").append(value_text(name, value, stop.metric)).append(
            "   "
        )
    best = view.best.get(stop.metric)
    if best is not None:
        reached = stop.target is not None and best >= stop.target
        text.append("best ", "dim").append(console.percent(best), "green" if reached else "")
        text.append("   ")
    if stop.target is not None:
        text.append("target ", "dim").append(console.percent(stop.target))
    history = [p.values[stop.metric] for p in training.points if stop.metric in p.values]
    spark = Text.assemble(
        "  ", (sparkline(history[-_SPARKS:]), "cyan"), (f"  {stop.metric}", "dim")
    )
    return Group(text, spark)


@dataclass(slots=True)
class _Lines:
    """What was already said, where nothing is redrawn."""

    state: tuple[JobState, int] | None = None
    outage: bool = False

    def update(self, training: Training, fresh: list[MetricPoint]) -> None:
        if training.outage and not self.outage:
            console.stamped(f"{training.outage}: trying again")
        self.outage = training.outage is not None
        view = training.view
        if view is None:
            return
        stop = view.spec.stop
        for point in fresh:
            parts = [
                f"{_words(n)} {value_text(n, v, stop.metric)}"
                for n, v in ordered(point.values, stop.metric)
            ]
            target = f"  target {console.percent(stop.target)}" if stop.target is not None else ""
            console.stamped(f"epoch {point.epoch}  {'  '.join(parts)}{target}")
        if (view.state, view.attempt) != self.state and view.state not in TERMINAL_JOB_STATES:
            again = f"  attempt {view.attempt}" if view.attempt > 1 else ""
            console.stamped(view.name, view.id, console.state(view.state), again)
        self.state = (view.state, view.attempt)


def watch_job(
    argosy: Argosy,
    job: str,
    timeout: float | None = None,
    aside: Callable[[], str | None] = lambda: None,
) -> JobView:
    """Show a job until it ends, then say how it ended.

    Args:
        argosy: the platform.
        job: its id.
        timeout: seconds to watch.
        aside: what else to show beside it; asked at each look.

    Returns:
        The job as it ended.

    Raises:
        WaitTimeoutError: it did not end in time.
    """
    training, lines = Training(), _Lines()
    live = (
        Live(training, console=console.err(), refresh_per_second=8) if console.is_live() else None
    )
    frame: AbstractContextManager[object] = live or nullcontext()
    with frame:
        for look in argosy.jobs.follow(job, timeout):
            training.outage = look.outage.detail if look.outage else None
            training.aside = aside()
            fresh: list[MetricPoint] = []
            if look.value is not None:
                last = training.points[-1].epoch if training.points else None
                fresh = list(argosy.jobs.metrics(job, last))
                training.points += fresh
                training.view = look.value
            if live is None:
                lines.update(training, fresh)
    if training.view is None:  # follow() yields a view or raises
        raise AssertionError
    say_end(training.view)
    return training.view


def say_end(view: JobView) -> None:
    """One line on how a job ended, and one on what to do next."""
    took = ""
    if view.started_at and view.ended_at:
        took = f" in {console.duration((view.ended_at - view.started_at).total_seconds())}"
    if view.state is JobState.SUCCEEDED:
        best = view.best.get(view.spec.stop.metric)
        figure = f", {view.spec.stop.metric} {console.percent(best)}" if best is not None else ""
        made = f"{view.model}@{view.version}" if view.version else "no version"
        console.say(Text(f"✓ succeeded{took}: {made}{figure}", "green"))
        console.say(f"  see it with `argosy model get {made}`", style="dim")
        return
    why = f": {view.cause}" if view.cause else ""
    detail = f": {console.clean(view.detail)}" if view.detail else ""
    word = "cancelled" if view.state is JobState.CANCELLED else "failed"
    style = "yellow" if view.state is JobState.CANCELLED else "red"
    console.say(Text(f"✗ {word}{took}{why}{detail}", style))
    console.say(f"  what it printed: `argosy job logs {view.id}`", style="dim")


def print_logs(argosy: Argosy, job: str, *, follow: bool) -> None:
    """Print a job's lines to stdout, and go on with it if asked to."""
    cursor = None

    def drain() -> None:
        nonlocal cursor
        while (page := argosy.jobs.log_page(job, cursor)).items:
            for line in page.items:
                _print_line(line)
            cursor = page.next or cursor

    if not follow:
        drain()
        return
    for _look in argosy.jobs.follow(job):
        drain()


def _print_line(line: LogLine) -> None:
    style = {"error": "red", "warning": "yellow", "debug": "dim"}.get(line.level, "")
    at = Text(f"{line.at.astimezone():%H:%M:%S} ", "dim")
    console.out().print(at.append(console.clean(line.text), style or "not dim"), soft_wrap=True)
