"""``argosy rollout start``: from a version, or from a draft."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from orchestrator.cli.options import Share, Span, home_option, output_option, timeout_option
from orchestrator.cli.rollout_shape import follow as watch_it
from orchestrator.cli.rollout_shape import rollout_shape


@click.command()
@click.argument("ref", metavar="MODEL[@VERSION]|ROLLOUT")
@click.option(
    "--waves", default="1,100%", show_default=True, help="Devices of each wave: counts or percents."
)
@click.option("--class", "device_class", help="Only devices of this class.")
@click.option("--tag", "tags", multiple=True, help="Only devices with this tag; may be repeated.")
@click.option("--variant", help="This variant for all, not the best for each.")
@click.option("--min-accuracy", type=float, help="Gate: least accuracy on labelled inferences.")
@click.option("--max-error-rate", type=float, help="Gate: failed inferences  [default: 0.02].")
@click.option("--max-failure-rate", type=float, help="Gate: failed devices  [default: 0.1].")
@click.option("--min-inferences", type=int, help="Gate: evidence of each device  [default: 50].")
@click.option("--soak", type=Span(), help="Least time from activation to verdict  [default: 5s].")
@click.option("--evidence", type=Span(), help="How long evidence is waited for  [default: 60s].")
@click.option(
    "--shadow", type=Span(), help="Try it so long beside the version that serves, before it may."
)
@click.option(
    "--shadow-agreement", type=float, help="Shadow: least share of equal answers  [default: 0.9]."
)
@click.option(
    "--shadow-compared", type=int, help="Shadow: answers that must be compared  [default: 50]."
)
@click.option(
    "--shadow-cpu", type=Share(), help="Shadow: share of a core it may use  [default: 25%]."
)
@click.option(
    "--shadow-max", type=Span(), help="Shadow: with fewer answers, end it then  [default: 1h]."
)
@click.option("--offer", type=Span(), help="How long an offer may be unanswered  [default: 2m].")
@click.option("--step", type=Span(), help="How long a device may make no progress  [default: 5m].")
@click.option("--straggler", type=Span(), help="How long the absent are waited for  [default: 1d].")
@click.option("--attempts", type=int, help="How often a device tries  [default: 3].")
@click.option("--retry-after", type=Span(), help="Before the second attempt  [default: 10s].")
@click.option("--draft", is_flag=True, help="Freeze the plan and show it, start nothing.")
@click.option("-w", "--watch", "follow", is_flag=True, help="Watch it until it settles.")
@timeout_option
@home_option
@output_option
def start(
    *,
    ref: str,
    waves: str,
    device_class: str | None,
    tags: tuple[str, ...],
    variant: str | None,
    draft: bool,
    follow: bool,
    timeout: float | None,
    home: Path | None,
    form: str,
    **more: float | None,
) -> int:
    """Start a rollout of MODEL@VERSION, or a drafted ROLLOUT."""
    from orchestrator.cli import console
    from orchestrator.cli.output import emit_one
    from orchestrator.cli.plan import rollout_spec
    from orchestrator.cli.refs import resolve
    from orchestrator.cli.rollout_watch import print_rollout
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        drafted = ref
        if not ref.startswith("rol_"):
            name, version = resolve(argosy, ref)
            spec = rollout_spec(
                name,
                version,
                waves=waves,
                device_class=device_class,
                tags=tags,
                variant=variant,
                more=more,
            )
            view = argosy.rollouts.create(spec)
            drafted = view.id
            if draft:
                emit_one(view, form, rollout_shape(), print_rollout)
                console.say(f"nothing runs yet: `argosy rollout start {view.id}`", style="dim")
                return 0
        view = argosy.rollouts.start(drafted)
        if follow:
            return watch_it(argosy, view.id, timeout, form)
    emit_one(view, form, rollout_shape(), lambda v: click.echo(v.id))
    if form == "table":
        console.say(f"started; watch it with `argosy rollout watch {view.id}`", style="dim")
    return 0
