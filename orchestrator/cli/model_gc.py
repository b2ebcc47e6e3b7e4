"""``argosy model gc``: files that nothing needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option, output_option

if TYPE_CHECKING:
    from schemas.model import CollectReport

_SHOWN = 20


@click.command()
@click.option("--keep-last", type=int, default=3, show_default=True, help="Versions of each model.")
@click.option(
    "--older-than",
    type=float,
    default=30.0,
    show_default=True,
    metavar="DAYS",
    help="Only versions that were registered so long ago.",
)
@click.option("-y", "--yes", is_flag=True, help="Do it, without asking.")
@home_option
@output_option
def gc(*, keep_last: int, older_than: float, yes: bool, home: Path | None, form: str) -> None:
    """Collect the files of versions that nothing needs; their records stay.

    What an alias, a tag, a device, a rollout or a job names is never touched, nor what is
    being uploaded. First it is shown what would go.
    """
    from orchestrator.cli import console
    from orchestrator.cli.asking import confirm, is_anyone_there
    from orchestrator.cli.authored import build
    from orchestrator.cli.output import Shape, emit_one
    from orchestrator.client import Argosy
    from schemas.model import CollectRequest

    names = {"keep_last": "--keep-last", "older_than_days": "--older-than"}
    would = build(CollectRequest, names, keep_last=keep_last, older_than_days=older_than)
    shape: Shape[CollectReport] = Shape(lambda report: "\n".join(report.purged))
    with Argosy.from_profile(home) as argosy:
        report = argosy.models.collect(would)
        if form == "table":
            _say(report)
        anything = bool(report.purged or report.artifacts)
        if anything and (yes or (form == "table" and is_anyone_there())):
            confirm("Collect them?", yes=yes)
            report = argosy.models.collect(would.model_copy(update={"dry_run": False}))
            if form == "table":
                _say(report)
        elif anything and form == "table":
            console.say("nothing was collected: say --yes to do it", style="dim")
    if form != "table":
        emit_one(report, form, shape, None)


def _say(report: CollectReport) -> None:
    from orchestrator.cli import console

    if not report.purged and not report.artifacts:
        console.say("there is nothing to collect")
        return
    shown = ", ".join(report.purged[:_SHOWN])
    more = len(report.purged) - _SHOWN
    versions = f"{shown} and {more} more" if more > 0 else shown or "no version"
    files = "1 file" if report.artifacts == 1 else f"{report.artifacts} files"
    did = "would go" if report.dry_run else "collected"
    console.say(f"{did}: {versions}; {files}, {console.size(report.bytes)}")
