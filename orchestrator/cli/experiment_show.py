"""An experiment for people: its arms, and a line for each difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.cli import console
from orchestrator.cli.output import Cell, Shape, print_facts, print_table
from schemas.gates import Metric

if TYPE_CHECKING:
    from schemas.experiment import Difference, ExperimentView

_UNITS = {Metric.RSS: "MiB", Metric.ENERGY: "mJ"}


def shape() -> Shape[ExperimentView]:
    """How experiments are listed."""
    return Shape(
        lambda view: view.id,
        ("ID", lambda view: view.id),
        ("STATE", lambda view: console.state(view.state)),
        ("MODEL", lambda view: view.spec.model),
        ("A", lambda view: str(view.spec.a)),
        ("B", lambda view: str(view.spec.b)),
        ("KEPT", lambda view: view.kept or console.NONE),
        ("AGE", lambda view: console.age(view.created_at)),
    )


def show(view: ExperimentView) -> None:
    """Print all of it."""
    spec = view.spec
    kept = f"{view.kept}, by {view.kept_rollout}" if view.kept else None
    print_facts(
        [
            ("experiment", view.id),
            ("state", console.state(view.state)),
            ("reason", view.reason),
            ("model", spec.model),
            ("started", f"{view.created_at.astimezone():%Y-%m-%d %H:%M}, by {view.requested_by}"),
            ("kept", kept),
            ("certainty", f"{100 * (1 - spec.alpha):g} %, of each interval by itself"),
            *(("note", note) for note in view.notes),
        ]
    )
    console.out().print()
    rows: list[list[Cell]] = [
        [
            one.arm,
            f"{spec.model}@{one.version}",
            f"{one.serving} of {one.devices}",
            one.rollout,
            console.state(one.state),
        ]
        for one in view.arms
    ]
    print_table(["ARM", "VERSION", "SERVING", "ROLLOUT", "STATE"], rows)
    if view.differences:
        console.out().print()
        _show_differences(view.differences)


def _show_differences(found: tuple[Difference, ...]) -> None:
    rows = [
        [
            one.metric.value,
            one.device_class or "all",
            _level(one.metric, one.a),
            _level(one.metric, one.b),
            f"{one.devices_a}+{one.devices_b}",
            one.better or console.NONE,
            one.words,
        ]
        for one in found
    ]
    print_table(["METRIC", "CLASS", "A", "B", "DEVICES", "BETTER", "B BESIDE A"], rows)


def _level(metric: Metric, value: float | None) -> str:
    if value is None:
        return console.NONE
    if metric.value.startswith("latency"):
        return f"{value:.3g} ms"
    if metric in _UNITS:
        return f"{value:.3g} {_UNITS[metric]}"
    return f"{100 * value:.2f} %"
