"""``argosy job compare``: what differs between jobs, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import rich_click as click

from orchestrator.cli.options import home_option

if TYPE_CHECKING:
    from orchestrator.client import Argosy
    from schemas.job import JobView
    from schemas.model import ModelVersionView

MAX_JOBS = 12
_WIDTH = 48


@click.command()
@click.argument("job_ids", metavar="JOB JOB…", nargs=-1, required=True)
@home_option
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    show_default=True,
    help="Form of the result on stdout.",
)
def compare(job_ids: tuple[str, ...], home: Path | None, form: str) -> None:
    """Show in what jobs differ: what was asked, what came of it, what it took."""
    from orchestrator.cli import console
    from orchestrator.cli.output import emit_value
    from orchestrator.client import Argosy
    from orchestrator.errors import Invalid

    if not 1 < len(job_ids) <= MAX_JOBS or len(set(job_ids)) != len(job_ids):
        detail = f"compare takes from 2 to {MAX_JOBS} different jobs"
        raise Invalid(detail, hint="`argosy job ls` lists them")
    with Argosy.from_profile(home) as argosy:
        views = [argosy.jobs.get(job) for job in job_ids]
        versions = [_version(argosy, view) for view in views]
    asked = differing(spec_rows(views))
    came = differing(result_rows(views, versions))
    if form != "table":
        value = {
            "jobs": [view.id for view in views],
            "spec": {row.key: list(row.values) for row in asked},
            "results": {row.key: list(row.values) for row in came},
        }
        emit_value(value, form)
        return
    _print(views, asked, came)
    if not asked:
        console.say("they were asked for the same", style="dim")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of every job. show: makes text of a value that is there."""

    key: str
    values: tuple[Any, ...]
    show: Callable[[Any], str] = str


def differing(rows: Sequence[Row]) -> list[Row]:
    """The rows in which not all jobs are alike."""
    return [row for row in rows if any(value != row.values[0] for value in row.values[1:])]


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a nested mapping by their keys with dots; None and empty ones left out."""
    for key, one in value.items():
        if isinstance(one, Mapping):
            yield from flat(one, f"{prefix}{key}.")
        elif one is not None and one != []:
            yield f"{prefix}{key}", one


def spec_rows(views: Sequence[JobView]) -> list[Row]:
    """What was asked, key by key."""
    from orchestrator.cli.job_text import plain_value

    specs = [dict(flat(view.spec.model_dump(mode="json"))) for view in views]
    keys = list(dict.fromkeys(key for spec in specs for key in spec if key != "cloned_from"))
    return [Row(key, tuple(spec.get(key) for spec in specs), plain_value) for key in keys]


def result_rows(views: Sequence[JobView], versions: Sequence[ModelVersionView | None]) -> list[Row]:
    """What came of each job, and what it took."""
    from orchestrator.cli import console

    def row(key: str, of: Callable[[JobView], Any], show: Callable[[Any], str] = str) -> Row:
        return Row(key, tuple(of(view) for view in views), show)

    hours = "{:.3g}".format
    rows = [
        row("state", lambda v: v.state.value),
        row("cause", lambda v: v.cause.value if v.cause else None),
        row("attempts", lambda v: v.attempt),
        row("epochs", lambda v: v.epoch or None),
    ]
    rows += [_figures("best", metric, views) for metric in _judged(views)]
    rows += [
        row("best.epoch", lambda v: _whole(v.best.get("epoch"))),
        row("best.trial", lambda v: _whole(v.best.get("trial"))),
        *(_figures("last", name, views) for name in ("loss", "validation_loss", "samples_per_s")),
        row("model", lambda v: f"{v.model}@{v.version}" if v.version else None),
        *_variant_rows(versions),
        row("took.seconds", _seconds, console.duration),
        row("used.core_hours", lambda v: v.usage.cpu_seconds / 3600 or None, hours),
        row("used.gpu_hours", lambda v: v.usage.gpu_seconds / 3600 or None, hours),
        row("cost", lambda v: v.cost.amount if v.cost else None, "{:,.4f}".format),
        row("cost.currency", lambda v: v.cost.currency if v.cost else None),
        row("problems", lambda v: len(v.problems) or None),
    ]
    return rows


def _judged(views: Sequence[JobView]) -> list[str]:
    return list(dict.fromkeys(view.spec.stop.metric for view in views))


def _figures(which: Literal["best", "last"], metric: str, views: Sequence[JobView]) -> Row:
    """One metric at its best, or at the end."""
    from orchestrator.cli.job_text import value_text

    found = tuple((view.best if which == "best" else view.last).get(metric) for view in views)
    return Row(f"{which}.{metric}", found, lambda value: value_text(metric, value, "accuracy"))


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _seconds(view: JobView) -> float | None:
    if view.started_at is None or view.ended_at is None:
        return None
    return (view.ended_at - view.started_at).total_seconds()


def _variant_rows(versions: Sequence[ModelVersionView | None]) -> Iterator[Row]:
    """Accuracy on the test split and size of each variant that any of the jobs made."""
    from orchestrator.cli import console

    made = [
        {variant.id: variant for variant in version.manifest.variants} if version else {}
        for version in versions
    ]
    for name in dict.fromkeys(name for variants in made for name in variants):
        accuracies, sizes = [], []
        for variants in made:
            variant = variants.get(name)
            on_test = [a.value for a in variant.accuracy if a.split == "test"] if variant else []
            accuracies.append(on_test[0] if on_test else None)
            sizes.append(variant.file.size if variant else None)
        yield Row(f"{name}.test_accuracy", tuple(accuracies), console.percent)
        yield Row(f"{name}.size", tuple(sizes), console.size)


def _version(argosy: Argosy, view: JobView) -> ModelVersionView | None:
    from orchestrator.errors import NotFound

    if view.model is None or view.version is None:
        return None
    try:
        return argosy.models.version(view.model, view.version)
    except NotFound:
        return None


def _print(views: Sequence[JobView], asked: Sequence[Row], came: Sequence[Row]) -> None:
    from rich.text import Text

    from orchestrator.cli.output import Cell, print_table

    rows: list[list[Cell]] = [
        [label, *(_cell(row, value) for value in row.values)]
        for label, row in [
            *((Text(row.key), row) for row in asked),
            *((Text(row.key, "cyan"), row) for row in came),
        ]
    ]
    print_table(["", *(view.id for view in views)], rows)


def _cell(row: Row, value: Any) -> str:
    from orchestrator.cli import console

    text = console.NONE if value is None else row.show(value)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"
