"""``argosy model optimize``: other variants of what is there already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from orchestrator.cli.optimize_options import optimize_options
from orchestrator.cli.options import home_option, output_option, timeout_option, watch_option

if TYPE_CHECKING:
    from orchestrator.cli.overrides import Override
    from orchestrator.client import Argosy
    from schemas.job import JobView
    from schemas.jobfile import JobSpec
    from schemas.model import ModelVersionView


@click.command()
@click.argument("ref", metavar="MODEL@VERSION")
@optimize_options
@click.option("--data", metavar="FILE.npz", help="Of an imported model: x and y to measure on.")
@click.option("--alias", help="Moves to the new version, once it is registered.")
@click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change any other key of the job."
)
@watch_option
@timeout_option
@home_option
@output_option
def optimize(
    *,
    ref: str,
    data: str | None,
    alias: str | None,
    sets: tuple[str, ...],
    follow: bool,
    timeout: float | None,
    home: Path | None,
    form: str,
    **options: Any,
) -> int:
    """Search variants of a version anew; the result is the model's next version.

    Nothing is trained from the beginning: it starts from the version's weights, with the
    code and data of the job that trained it, or from the FP32 file that was imported.
    What is not given is as in that job.
    """
    from orchestrator.cli.job_submit import may_be_queued, queued
    from orchestrator.cli.optimize_options import overrides_of
    from orchestrator.cli.overrides import named, parse
    from orchestrator.cli.refs import load
    from orchestrator.client import Argosy

    changes = [*overrides_of(options), *parse(sets)]
    with Argosy.from_profile(home) as argosy:
        view = load(argosy, ref)
        # The alias of the first job is not meant again: who optimizes may only be trying.
        promote = named("--alias", "promote", None if alias is None else {"alias": alias})
        spec = spec_for(argosy, view, [*changes, *promote], data)
        with may_be_queued():
            job = argosy.jobs.submit(spec)
        return queued(argosy, job, follow=follow, timeout=timeout, form=form)


def spec_for(
    argosy: Argosy, view: ModelVersionView, changes: list[Override], data: str | None = None
) -> JobSpec:
    """The job that optimizes a version.

    Raises:
        Conflict: its files, its weights or what made it is gone.
        Located: the changes do not make a job.
    """
    from orchestrator.errors import Conflict, Invalid

    name = f"{view.model}@{view.version}"
    if view.purged:
        detail = f"the files of {name} were collected; nothing is left to optimize"
        raise Conflict(detail, hint="train or import the model again")
    if view.revoked:
        detail = f"{name} is revoked: {view.revoked_reason or 'no reason was given'}"
        raise Conflict(detail, hint="optimize another version")
    lineage = view.manifest.lineage
    if lineage.task is None and (lineage.source or lineage.source_sha256):
        return _imported(argosy, view, changes, data)
    if data is not None:
        detail = f"--data: {name} was trained, not imported; its task knows its data"
        raise Invalid(detail, hint="change it with --set dataset.path=…")
    if view.manifest.weights is None:
        detail = f"{name} has no weights kept with it"
        raise Conflict(detail, hint="train it again; versions keep their weights now")
    return _trained(_made_by(argosy, view), view, changes)


def _made_by(argosy: Argosy, view: ModelVersionView) -> JobView:
    from orchestrator.errors import Conflict, NotFound

    name, job = f"{view.model}@{view.version}", view.manifest.lineage.job
    if job is None:
        detail = f"{name} was not made by a job: its task and settings are not known"
        raise Conflict(detail, hint="write a job file with `base: …` and submit that")
    try:
        return argosy.jobs.get(job)
    except NotFound:
        detail = f"the job {job} that made {name} is gone: its task and settings are not known"
        raise Conflict(
            detail, hint=f"write a job file with `base: {name}` and submit that"
        ) from None


def _trained(job: JobView, view: ModelVersionView, changes: list[Override]) -> JobSpec:
    from orchestrator.cli.jobfile import cloned
    from orchestrator.cli.overrides import Override

    name = f"{view.model}@{view.version}"
    begin = [
        Override(("base",), name, name),
        Override(("model",), view.model, name),
        Override(("sweep",), None, name),
        Override(("promote",), {}, name),
    ]
    # What a sweep chose, this version was trained with.
    chosen = [
        Override(tuple(key.split(".")), value, name)
        for key, value in view.manifest.lineage.parameters.items()
    ]
    return cloned(job, [*begin, *chosen, *changes])


def _imported(
    argosy: Argosy, view: ModelVersionView, changes: list[Override], data: str | None
) -> JobSpec:
    from orchestrator.cli.batch import place
    from orchestrator.cli.jobfile import from_options
    from orchestrator.errors import Conflict, NotFound

    name, lineage = f"{view.model}@{view.version}", view.manifest.lineage
    full = next((v for v in view.manifest.variants if v.precision == "fp32" and not v.pruned), None)
    if full is None:
        detail = f"{name} has no FP32 variant to begin with"
        raise Conflict(detail, hint="register the original file again")
    value: dict[str, Any] = {"name": view.model}
    if lineage.job is not None:
        try:
            value = argosy.jobs.get(lineage.job).spec.model_dump(mode="json")
            value["cloned_from"] = lineage.job
        except NotFound:
            value = {"name": view.model}
    known = value.get("onnx") or {}
    value |= {
        "model": view.model,
        "promote": {},
        "onnx": {
            "file": full.file.sha256,
            "size": full.file.size,
            "name": lineage.source or full.file.path,
            "signature": view.manifest.signature.model_dump(mode="json"),
            "labels": list(view.manifest.labels),
            "data": place(data) if data is not None else known.get("data"),
            "dynamic": known.get("dynamic", False),
        },
    }
    return from_options(value, changes, {})
