"""``argosy job plot``: curves as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option

if TYPE_CHECKING:
    from orchestrator.cli.job_figure import Curves
    from orchestrator.client import Argosy

MAX_JOBS = 12
FORMS = (".png", ".svg")
_POINTS = 2000
_SWEEP_POINTS = 5000


@click.command()
@click.argument("job_ids", metavar="JOB…", nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A .png or .svg file  [default: NAME-JOB.png here].",
)
@click.option(
    "--metric", "metrics", multiple=True, help="Draw this one only, as in lr; repeatable."
)
@home_option
def plot(
    *, job_ids: tuple[str, ...], out: Path | None, metrics: tuple[str, ...], home: Path | None
) -> None:
    """Draw the curves of jobs into a picture: loss and accuracy over the epochs.

    Several jobs are compared in one picture; of a sweep, the best trial stands out.
    """
    from orchestrator.cli import console
    from orchestrator.client import Argosy
    from orchestrator.errors import Invalid

    _check(job_ids, out)
    with Argosy.from_profile(home) as argosy:
        curves = [_curves(argosy, job) for job in job_ids]
    known = sorted({name for one in curves for p in one.points for name in p.values})
    if not known:
        ids = " ".join(job_ids)
        detail = f"there is nothing to draw: no epoch of {ids} has ended"
        raise Invalid(detail, hint=f"see how far it is with `argosy job get {job_ids[0]}`")
    for metric in metrics:
        if metric not in known:
            detail = f"--metric: there is no {metric!r}"
            raise Invalid(detail, hint=f"measured were {', '.join(known)}")
    from orchestrator.cli.job_figure import draw, save

    path = out or Path(_default(curves))
    save(draw(curves, metrics), path)
    click.echo(path)
    console.say(f"{len(known)} metrics, {sum(len(c.points) for c in curves)} points", style="dim")


def _check(job_ids: tuple[str, ...], out: Path | None) -> None:
    from importlib.util import find_spec

    from orchestrator.errors import Invalid, Unavailable

    if len(job_ids) > MAX_JOBS or len(set(job_ids)) != len(job_ids):
        detail = f"plot takes up to {MAX_JOBS} different jobs"
        raise Invalid(detail)
    if out is not None and out.suffix.lower() not in FORMS:
        detail = f"--out: {out.name!r} is neither a .png nor an .svg file"
        raise Invalid(detail, hint="as in --out curves.png")
    if out is not None and not out.absolute().parent.is_dir():
        detail = f"--out: there is no folder {out.absolute().parent}"
        raise Invalid(detail)
    if find_spec("matplotlib") is None:
        detail = "drawing needs matplotlib, which is not installed"
        raise Unavailable(detail, hint="install it with `pip install 'argosy[plot]'`")


def _curves(argosy: Argosy, job: str) -> Curves:
    from orchestrator.cli.job_figure import Curves
    from orchestrator.errors import Invalid

    view = argosy.jobs.get(job)
    if view.spec.batch is not None:
        detail = f"{job} is batch inference: it has no curves"
        raise Invalid(detail, hint="name jobs that train")
    points = _SWEEP_POINTS if view.spec.sweep else _POINTS
    return Curves(view, tuple(argosy.jobs.metrics(job, points=points)))


def _default(curves: list[Curves]) -> str:
    first = curves[0].view
    return f"{first.name}-{first.id}.png" if len(curves) == 1 else f"{first.name}-compared.png"
