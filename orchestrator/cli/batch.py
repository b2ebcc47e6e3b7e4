"""``argosy batch``: a registered model over files, on the cluster."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from orchestrator.cli.options import home_option, output_option, timeout_option

_MAX_NAME = 63
_NAMES = {
    "name": "--name",
    "project": "--project",
    "workers": "--workers",
    "cpus_per_worker": "--cpus",
    "batch_size": "--batch-size",
    "columns": "--columns",
    "variant": "--variant",
    "input": "IN",
    "output": "OUT",
    "model": "MODEL@VERSION",
}


@click.command()
@click.argument("ref", metavar="MODEL@VERSION")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--variant", help="Of the version  [default: the first that the cluster runs].")
@click.option("--workers", default="1", show_default=True, help="As in 4, or 2..8.")
@click.option("--cpus", type=float, default=1.0, show_default=True, help="Cores of each worker.")
@click.option("--columns", metavar="A,B", help="Of csv and parquet, in the order of the features.")
@click.option("--batch-size", type=int, default=256, show_default=True, help="Rows at once.")
@click.option("--name", help="The job's name  [default: batch-MODEL].")
@click.option("--project", default="default", help="Whose share of the cluster it counts to.")
@click.option("-w/-W", "--watch/--no-watch", "follow", default=True, help="Watch it until it ends.")
@timeout_option
@home_option
@output_option
def batch(
    *,
    ref: str,
    source: str,
    target: str,
    variant: str | None,
    workers: str,
    cpus: float,
    columns: str | None,
    batch_size: int,
    name: str | None,
    project: str,
    follow: bool,
    timeout: float | None,
    home: Path | None,
    form: str,
) -> int:
    """Score the files in IN with a model; the results are parquet files in OUT.

    IN is a file or folder of npy, npz, csv or parquet. Both are folders or URLs that every
    node of the cluster sees. What is in OUT already is not scored again.
    """
    from orchestrator.cli import console
    from orchestrator.cli.authored import build
    from orchestrator.cli.job_submit import may_be_queued, queued
    from orchestrator.cli.refs import resolve
    from orchestrator.client import Argosy
    from schemas.jobfile import Batch, JobSpec, Resources

    if is_local(source) and not Path(source).expanduser().exists():
        text = f"note: {source} is not on this machine; the cluster must see it"
        console.say(text, style="yellow")
    with Argosy.from_profile(home) as argosy:
        model, version = resolve(argosy, ref)
        spec = build(
            JobSpec,
            _NAMES,
            name=name or f"batch-{model}"[:_MAX_NAME].rstrip("-"),
            project=project,
            batch=build(
                Batch,
                _NAMES,
                model=f"{model}@{version}",
                input=place(source),
                output=place(target),
                variant=variant,
                batch_size=batch_size,
                columns=tuple(one.strip() for one in columns.split(",")) if columns else (),
            ),
            resources=build(
                Resources,
                _NAMES,
                workers=workers,
                cpus_per_worker=cpus,
            ),
        )
        with may_be_queued():
            view = argosy.jobs.submit(spec)
        return queued(argosy, view, follow=follow, timeout=timeout, form=form)


def is_local(text: str) -> bool:
    """Whether this is a path and not a URL."""
    return "://" not in text


def place(text: str) -> str:
    """A path as the cluster must be told it: absolute. A URL as it is."""
    if not text or not is_local(text):
        return text
    return str(Path(text).expanduser().absolute())
