"""One job, with all that is known of it."""

from __future__ import annotations

from orchestrator.cli import console
from orchestrator.cli.job_text import (
    best_trial,
    code_text,
    cost_text,
    live_parts,
    parameters_text,
    problems_text,
    resources_text,
    source_text,
    trains,
    usage_text,
    value_text,
    waiting_text,
    words,
)
from orchestrator.cli.output import Cell, print_facts, print_table
from schemas.job import TERMINAL_JOB_STATES, JobView


def show_job(view: JobView) -> None:
    """Print a job for people."""
    print_facts([*_what(view), *_how(view), *_since(view)])
    if view.trials:
        console.out().print()
        print_trials(view)


def _what(view: JobView) -> list[tuple[str, Cell | None]]:
    spec = view.spec
    why = f"{view.cause}: {console.clean(view.detail or '')}" if view.cause else view.detail
    batch = spec.batch
    return [
        ("job", view.id),
        ("name", view.name),
        ("project", spec.project),
        ("priority", str(spec.priority) if spec.priority else None),
        ("state", console.state(view.state)),
        ("why", why),
        ("waits", waiting_text(view)),
        ("task", spec.task),
        ("begins with", source_text(spec)),
        ("model", batch.model if batch else None),
        ("input", batch.input if batch else None),
        ("output", batch.output if batch else None),
        ("code", code_text(spec.code)),
        ("cloned from", spec.cloned_from),
        ("data", spec.dataset.path),
        ("problems", problems_text(view)),
        ("workers", resources_text(view)),
    ]


def _how(view: JobView) -> list[tuple[str, Cell | None]]:
    if not trains(view.spec):
        return [("live", _live(view)), ("attempt", _attempt(view))]
    stop = view.spec.stop
    best = view.best.get(stop.metric)
    target = f", target {console.percent(stop.target)}" if stop.target else ""
    reached = None if best is None else f"best {value_text(stop.metric, best, stop.metric)}{target}"
    return [
        ("epoch", f"{view.epoch} of at most {stop.max_epochs}"),
        (words(stop.metric), reached),
        ("live", _live(view)),
        ("attempt", _attempt(view)),
    ]


def _live(view: JobView) -> str | None:
    if view.live is None or view.state in TERMINAL_JOB_STATES:
        return None
    parts = live_parts(view.live, rows=view.spec.batch is not None)
    return "  ".join(f"{name} {value}" for name, value in parts)


def _attempt(view: JobView) -> str:
    return f"{view.attempt} of {view.spec.max_attempts}"


def _since(view: JobView) -> list[tuple[str, Cell | None]]:
    start, end = view.started_at, view.ended_at
    took = console.duration((end - start).total_seconds()) if start and end else None
    return [
        ("agent", view.agent),
        ("model", f"{view.model}@{view.version}" if view.version else None),
        ("used", usage_text(view.usage)),
        ("cost", cost_text(view.cost)),
        ("created", f"{view.created_at.astimezone():%Y-%m-%d %H:%M:%S}"),
        ("took", took),
    ]


def print_trials(view: JobView) -> None:
    """Print the trials of a sweep, the best one marked."""
    best = best_trial(view)
    metric = view.spec.stop.metric
    rows: list[list[Cell]] = []
    for trial in view.trials:
        figure = console.NONE if trial.best is None else value_text(metric, trial.best, metric)
        mark = "●" if best is not None and trial.number == best.number else " "
        rows.append(
            [
                mark,
                str(trial.number),
                console.state(trial.state),
                str(trial.epochs),
                figure,
                parameters_text(trial),
                trial.detail or "",
            ]
        )
    headings = ["", "TRIAL", "STATE", "EPOCHS", words(metric).upper(), "PARAMETERS", ""]
    print_table(headings, rows)
