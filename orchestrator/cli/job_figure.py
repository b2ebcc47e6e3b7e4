"""The picture of jobs' curves, drawn with matplotlib into a file."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from orchestrator.cli.job_text import best_trial, parameters_text, words
from orchestrator.errors import Invalid
from schemas.job import JobView, MetricPoint

_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00",
    "#332288", "#882255", "#117733", "#999933", "#aa4499", "#666666",
)  # fmt: skip
"""Told apart by colour-blind readers too (Okabe and Ito; Tol)."""

_THIN, _BOLD = 0.8, 2.2
_STYLE = {
    "text.parse_math": False,  # a name with a dollar is a name
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "font.size": 10.0,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "svg.hashsalt": "argosy",
    "svg.fonttype": "none",
}


@dataclass(frozen=True, slots=True)
class Curves:
    """A job and what its epochs measured, of all trials."""

    view: JobView
    points: tuple[MetricPoint, ...]

    def series(self, metric: str, trial: int) -> tuple[list[int], list[float]]:
        """The epochs in which one training measured a metric, and its values."""
        found = [p for p in self.points if p.trial == trial and metric in p.values]
        found.sort(key=lambda point: point.epoch)
        return [p.epoch for p in found], [p.values[metric] for p in found]

    @property
    def trials(self) -> tuple[int, ...]:
        """The numbers of its trainings; 0 for one that is no sweep."""
        return tuple(sorted({point.trial for point in self.points}))

    @property
    def shown(self) -> int | None:
        """The trial that stands out: the best so far, or the only one."""
        best = best_trial(self.view)
        if best is not None and best.number in self.trials:
            return best.number
        return self.trials[0] if len(self.trials) == 1 else self._best_by_points()

    def _best_by_points(self) -> int | None:
        metric = self.view.spec.stop.metric
        judged = [p for p in self.points if metric in p.values]
        return max(judged, key=lambda p: p.values[metric]).trial if judged else None


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes. metrics: drawn there, the first of them solid."""

    title: str
    metrics: tuple[str, ...]
    share: bool = False


def panels(curves: Sequence[Curves], metrics: Sequence[str]) -> list[Panel]:
    """The panels of a picture: one for each metric named, else the losses and the shares."""
    if metrics:
        return [Panel(words(name), (name,), _is_share(curves, name)) for name in metrics]
    known = dict.fromkeys(name for one in curves for point in one.points for name in point.values)
    losses = _first(("validation_loss", "loss"), [name for name in known if "loss" in name])
    judged = tuple(dict.fromkeys(one.view.spec.stop.metric for one in curves))
    others = [name for name in known if "acc" in name or name in judged]
    shares = _first((*judged, "train_accuracy"), others)
    made = []
    if losses:
        made.append(Panel("loss", losses))
    if shares:
        made.append(Panel(words(judged[0]), shares, all(_is_share(curves, n) for n in shares)))
    return made or [Panel(words(name), (name,)) for name in list(known)[:2]]


def _first(wanted: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    return (*(n for n in wanted if n in known), *sorted(n for n in known if n not in wanted))


def _is_share(curves: Sequence[Curves], name: str) -> bool:
    values = [p.values[name] for one in curves for p in one.points if name in p.values]
    return "acc" in name and all(0 <= value <= 1 for value in values)


def draw(curves: Sequence[Curves], metrics: Sequence[str] = ()) -> Figure:
    """Draw jobs.

    Args:
        curves: one for each job; colours tell them apart.
        metrics: one panel for each; empty: the losses and the judged metric.
    """
    chosen = panels(curves, metrics)
    with _style():
        figure = Figure(figsize=(6.2 * len(chosen), 4.4), layout="constrained", dpi=140)
        FigureCanvasAgg(figure)
        every = figure.subplots(1, len(chosen), squeeze=False)[0]
        for axes, panel in zip(every, chosen, strict=True):
            _panel(axes, panel, curves)
        figure.suptitle(_title(curves), fontsize=11, x=0.01, ha="left")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a picture, whole or not at all; the ending says as what.

    Raises:
        Invalid: it cannot be written there.
    """
    form = path.suffix.lower().removeprefix(".")
    # Without the time, so that the same curves give the same file.
    metadata = {"Date": None} if form == "svg" else {"Software": "argosy"}
    name: str | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=".argosy-plot-")
        with os.fdopen(handle, "wb") as file, _style():
            figure.savefig(file, format=form, metadata=metadata)
            os.fchmod(file.fileno(), 0o644)
        Path(name).replace(path)
    except OSError as error:
        if name is not None:
            with contextlib.suppress(OSError):
                Path(name).unlink()
        detail = f"--out: {path} cannot be written: {error.strerror}"
        raise Invalid(detail) from error


@contextlib.contextmanager
def _style() -> Iterator[None]:
    settings: Any = _STYLE  # only the newest matplotlib has types for its keys
    with mpl.rc_context(settings):
        yield


def _panel(axes: Axes, panel: Panel, curves: Sequence[Curves]) -> None:
    several = len(curves) > 1
    for index, one in enumerate(curves):
        colour = _COLOURS[index % len(_COLOURS)]
        for trial in one.trials:
            if trial != one.shown:
                # Only what is judged, or the panel's first: the rest would hide it.
                axes.plot(*one.series(panel.metrics[0], trial), color=colour, lw=_THIN, alpha=0.35)
        if one.shown is not None:
            _shown(axes, panel, one, colour, several=several)
    _targets(axes, panel, curves)
    dashed = ", ".join(words(name) for name in panel.metrics[1:])
    title = f"{words(panel.metrics[0])} (dashed: {dashed})" if several and dashed else panel.title
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    epochs = {point.epoch for one in curves for point in one.points}
    if len(epochs) == 1:
        axes.set_xlim(min(epochs) - 1, max(epochs) + 1)
    if panel.share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best")


def _shown(axes: Axes, panel: Panel, one: Curves, colour: str, *, several: bool) -> None:
    """The training that stands out, with its best epoch marked."""
    trial = one.shown or 0
    for number, metric in enumerate(panel.metrics):
        epochs, values = one.series(metric, trial)
        if not epochs:
            continue
        axes.plot(
            epochs,
            values,
            color=colour if several or number == 0 else _COLOURS[number % len(_COLOURS)],
            lw=_BOLD if number == 0 else 1.3,
            ls="-" if number == 0 else "--",
            marker="o" if len(epochs) == 1 else "",
            label=_label(one, metric, several=several, first=number == 0),
        )
    _mark_best(axes, panel, one, colour, trial)


def _mark_best(axes: Axes, panel: Panel, one: Curves, colour: str, trial: int) -> None:
    judged = one.view.spec.stop.metric
    epochs, values = one.series(judged, trial)
    if not values:
        return
    top = max(values)
    at = epochs[values.index(top)]
    there, drawn = one.series(panel.metrics[0], trial)
    if at not in there:
        return
    height = drawn[there.index(at)]
    axes.axvline(at, color=colour, lw=0.8, ls=":", alpha=0.7)
    axes.plot([at], [height], marker="o", ms=6, mfc="white", mec=colour, mew=1.6, ls="")
    if panel.metrics[0] == judged:
        figure = f"{100 * top:.1f} %" if panel.share else f"{top:.4g}"
        last = max(point.epoch for point in one.points)
        axes.annotate(
            f"{figure} at epoch {at}",
            (at, height),
            xytext=(0, -12 if len(values) > 1 else 8),
            textcoords="offset points",
            ha="right" if at > last / 2 else "left",
            va="top" if len(values) > 1 else "bottom",
            fontsize=9,
            color=colour,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )


def _label(one: Curves, metric: str, *, several: bool, first: bool) -> str | None:
    """What a line is called in the legend; of several jobs the title tells the metrics."""
    if not first:
        return None if several else words(metric)
    parts = [f"{one.view.name} …{one.view.id[-6:]}"] if several else [words(metric)]
    best = best_trial(one.view)
    if best is not None and best.number == one.shown:
        parts.append(f"trial {best.number}: {parameters_text(best)}"[:60])
    return ", ".join(parts)


def _targets(axes: Axes, panel: Panel, curves: Sequence[Curves]) -> None:
    targets = {
        one.view.spec.stop.target
        for one in curves
        if one.view.spec.stop.metric in panel.metrics and one.view.spec.stop.target is not None
    }
    for target in sorted(target for target in targets if target is not None):
        axes.axhline(target, color="#777777", lw=0.9, ls=(0, (5, 4)))
        axes.annotate(
            "target",
            (0.0, target),
            xycoords=("axes fraction", "data"),
            xytext=(4, 2),
            textcoords="offset points",
            fontsize=8,
            color="#777777",
        )


def _title(curves: Sequence[Curves]) -> str:
    if len(curves) > 1:
        return f"{len(curves)} jobs"
    view = curves[0].view
    made = f"  {view.model}@{view.version}" if view.version else ""
    trials = f"  {len(view.trials)} trials" if view.trials else ""
    return f"{view.name}  {view.id}  {view.state.value}{made}{trials}"
