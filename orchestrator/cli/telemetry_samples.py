"""``argosy telemetry samples``."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from orchestrator.cli.options import home_option, output_option

if TYPE_CHECKING:
    from orchestrator.cli.output import Shape
    from schemas.telemetry import SampleView


@click.command()
@click.argument("name", metavar="MODEL")
@click.option("--version", "which", help="Only of this version: a number or an alias.")
@click.option("--stream", type=click.Choice(["uniform", "uncertain"]), help="Only of this stream.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Save the inputs to this .npz file; of one --stream.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=100,
    show_default=True,
    help="List so many at most; --out takes all.",
)
@home_option
@output_option
def samples(
    *,
    name: str,
    which: str | None,
    stream: Any,
    out: Path | None,
    limit: int,
    home: Path | None,
    form: str,
) -> None:
    """See or save the inputs that devices gave away.

    A device does so only when its operator opted in. The two streams are not to be mixed: uniform
    is a random sample of all that is served, uncertain what the model was least sure of.
    Saving is written into the audit log.
    """
    from orchestrator.cli import console
    from orchestrator.cli.output import emit_list
    from orchestrator.cli.refs import model_name, version_of
    from orchestrator.client import Argosy

    if out is not None and stream is None:
        detail = "--out needs --stream uniform or --stream uncertain: the two are not to be mixed"
        raise click.UsageError(detail)
    empty = f"no device has given away inputs of {name}: it takes --samples on a device"
    with Argosy.from_profile(home) as argosy:
        name = model_name(name)
        version = None if which is None else version_of(argosy, name, which, "--version")
        if out is not None:
            count = argosy.telemetry.save_samples(name, version, out, stream=stream)
            if not count:
                argosy.models.get(name)
            console.say(f"{count} samples are in {out}" if count else empty)
            return
        found = list(islice(argosy.telemetry.samples(name, version, stream=stream), limit))
        if not found:
            argosy.models.get(name)  # a name that is mistyped has no samples either
        emit_list(found, form, _shape(), empty)


def _shape() -> Shape[SampleView]:
    from orchestrator.cli import console
    from orchestrator.cli.output import Shape

    def label(value: int | None) -> str:
        return console.NONE if value is None else str(value)

    return Shape(
        lambda s: f"{s.device}/{s.boot}/{s.seq}",
        ("AT", lambda s: s.at.astimezone().strftime("%Y-%m-%d %H:%M:%S")),
        ("DEVICE", lambda s: s.device),
        ("VERSION", lambda s: str(s.version)),
        ("STREAM", lambda s: s.stream),
        ("PROBABILITY", lambda s: f"{s.probability:.3g}"),
        ("PREDICTED", lambda s: label(s.predicted)),
        ("CONFIDENCE", lambda s: console.percent(s.confidence)),
        ("TRUTH", lambda s: label(s.truth)),
        ("SIZE", lambda s: console.size(s.bytes)),
    )
