"""``argosy experiment``: two versions of a model side by side, on devices that chance chose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import rich_click as click

from orchestrator.cli.options import SPANS, home_option, output_option

if TYPE_CHECKING:
    from schemas.experiment import ArmName

_NAMES = {
    "model": "MODEL",
    "device_class": "--class",
    "tags": "--tag",
    "where": "--where",
    "fleet": "--fleet",
    "exclude": "--exclude",
    "percent": "--percent",
    "share": "--share",
    "metrics": "--metric",
    "min_devices": "--min-devices",
    "min_inferences": "--min-inferences",
    "alpha": "--alpha",
    "baseline_seconds": "--baseline",
}


@click.group()
def experiment() -> None:
    """Split devices between two versions, and see how these differ."""


@experiment.command()
@click.argument("model", metavar="MODEL")
@click.option("--a", required=True, metavar="VERSION", help="One version: a number or an alias.")
@click.option("--b", required=True, metavar="VERSION", help="The other one.")
@click.option("--class", "device_class", metavar="CLASS", help="Only devices of this class.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only with this tag; repeatable.")
@click.option("--where", metavar="SELECTOR", help="Only devices that match.")
@click.option("--fleet", metavar="NAME", help="Only devices of a saved fleet.")
@click.option("--exclude", metavar="SELECTOR", help="Never devices that match.")
@click.option(
    "--percent", type=float, metavar="N", help="Percent of the target that takes part  [100]."
)
@click.option("--share", type=float, metavar="N", help="Share of those who get b  [0.5].")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="METRIC",
    help="error_rate, accuracy, low_confidence, latency_p50, latency_p95  [these], latency_p99,"
    " class_mix, rss or energy; repeatable.",
)
@click.option(
    "--min-devices", type=int, metavar="N", help="Of a class in each arm, to be compared  [5]."
)
@click.option("--min-inferences", type=int, metavar="N", help="Of a device, for it to count  [50].")
@click.option(
    "--alpha", type=float, metavar="P", help="Intervals miss so often: 0.05 is 5 in 100  [0.05]."
)
@click.option(
    "--baseline", "baseline_seconds", type=SPANS, help="How far a device's own past reaches  [1h]."
)
@home_option
@output_option
def start(*, model: str, a: str, b: str, home: Path | None, form: str, **options: Any) -> None:
    """Start an experiment, as in `argosy experiment start digits --a champion --b 7`.

    Chance decides which device gets which version, by class in the same shares. See
    docs/experiments.md for what the figures mean, and when to look at them.
    """
    from orchestrator.cli import console
    from orchestrator.cli.authored import build
    from orchestrator.cli.experiment_show import shape
    from orchestrator.cli.output import emit_one
    from orchestrator.cli.refs import version_of
    from orchestrator.client import Argosy
    from schemas.experiment import ExperimentSpec

    given = {name: value for name, value in options.items() if value not in {None, ()}}
    with Argosy.from_profile(home) as argosy:
        spec = build(
            ExperimentSpec,
            _NAMES,
            model=model,
            a=version_of(argosy, model, a, "--a"),
            b=version_of(argosy, model, b, "--b"),
            **given,
        )
        view = argosy.experiments.start(spec)
    emit_one(view, form, shape(), lambda v: click.echo(v.id))
    if form == "table":
        sizes = " and ".join(f"{one.devices} devices for {one.arm}" for one in view.arms)
        console.say(f"{sizes}; `argosy experiment get {view.id}` shows how they do", style="dim")


@experiment.command()
@home_option
@output_option
def ls(home: Path | None, form: str) -> None:
    """List experiments, newest first."""
    from orchestrator.cli.experiment_show import shape
    from orchestrator.cli.output import emit_list
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        found = list(argosy.experiments.list())
    empty = "no experiments: start one with `argosy experiment start MODEL --a V --b V`"
    emit_list(found, form, shape(), empty)


@experiment.command()
@click.argument("experiment_id", metavar="EXPERIMENT")
@home_option
@output_option
def get(experiment_id: str, home: Path | None, form: str) -> None:
    """Show an experiment, and how its two versions differ."""
    from orchestrator.cli.experiment_show import shape, show
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        view = argosy.experiments.get(experiment_id)
    emit_one(view, form, shape(), show)


@experiment.command()
@click.argument("experiment_id", metavar="EXPERIMENT")
@click.option("--keep", type=click.Choice(["a", "b"]), help="Give all devices this arm's version.")
@click.option("--reason", default="", help="Why; it is kept.")
@home_option
@output_option
def stop(
    *, experiment_id: str, keep: str | None, reason: str, home: Path | None, form: str
) -> None:
    """End both arms; without --keep each device stays with what it has."""
    from orchestrator.cli import console
    from orchestrator.cli.authored import build
    from orchestrator.cli.experiment_show import shape, show
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy
    from schemas.experiment import StopRequest

    said = build(StopRequest, {"reason": "--reason"}, reason=reason)
    with Argosy.from_profile(home) as argosy:
        view = argosy.experiments.stop(
            experiment_id, keep=cast("ArmName | None", keep), reason=said.reason
        )
    emit_one(view, form, shape(), show)
    if form == "table" and view.kept_rollout is not None:
        console.say(f"`argosy rollout watch {view.kept_rollout}` follows it", style="dim")
