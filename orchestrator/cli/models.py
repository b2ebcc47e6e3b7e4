"""``argosy model``: the registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option, output_option

if TYPE_CHECKING:
    from orchestrator.cli.output import Shape
    from schemas.measure import Accuracy
    from schemas.model import ModelVersionView, ModelView, Variant


@click.group()
def model() -> None:
    """See what was trained."""


@model.command()
@home_option
@output_option
def ls(home: Path | None, form: str) -> None:
    """List models."""
    from orchestrator.cli import console
    from orchestrator.cli.output import Shape, emit_list
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        models = list(argosy.models.list())
    shape: Shape[ModelView] = Shape(
        lambda view: view.name,
        ("NAME", lambda view: view.name),
        ("VERSIONS", lambda view: str(len(view.versions))),
        ("LATEST", lambda view: str(max(view.versions, default=console.NONE))),
        (
            "ALIASES",
            lambda view: " ".join(f"{k}={v}" for k, v in view.aliases.items()) or console.NONE,
        ),
    )
    emit_list(models, form, shape, "no models: train one with `argosy job submit FILE`")


@model.command()
@click.argument("ref", metavar="MODEL[@VERSION]")
@home_option
@output_option
def get(ref: str, home: Path | None, form: str) -> None:
    """Show a version: its variants, their figures, where it came from."""
    from orchestrator.cli.output import Shape, emit_one
    from orchestrator.cli.refs import resolve
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        view = argosy.models.version(*resolve(argosy, ref))
    shape: Shape[ModelVersionView] = Shape(lambda v: f"{v.model}@{v.version}")
    emit_one(view, form, shape, show_version)


def figure(variant: Variant, *splits: str) -> Accuracy:
    """A variant's accuracy on the first of ``splits`` it was measured on, else its last."""
    by_split = {accuracy.split: accuracy for accuracy in variant.accuracy}
    return next((by_split[s] for s in splits if s in by_split), variant.accuracy[-1])


def show_version(view: ModelVersionView) -> None:
    """Print a version for people."""
    from orchestrator.cli import console
    from orchestrator.cli.output import Cell, print_facts

    lineage = view.manifest.lineage
    made = [f"job {lineage.job}"] if lineage.job else []
    made += [f"{lineage.epochs} epochs"] if lineage.epochs is not None else []
    made += [f"seed {lineage.seed}"] if lineage.seed is not None else []
    facts: list[tuple[str, Cell | None]] = [
        ("model", f"{view.model}@{view.version}"),
        ("state", console.state("REVOKED" if view.revoked else "ACTIVE")),
        ("aliases", ", ".join(view.aliases)),
        ("registered", f"{view.created_at.astimezone():%Y-%m-%d %H:%M:%S}"),
        ("made by", ", ".join(made)),
        ("input", _tensors(view, "inputs")),
        ("output", _tensors(view, "outputs")),
        ("manifest", view.manifest_sha256),
    ]
    print_facts(facts)
    console.out().print()
    print_variants(view)


def _tensors(view: ModelVersionView, side: str) -> str:
    specs = getattr(view.manifest.signature, side)
    return ", ".join(
        f"{s.name} {s.dtype}[{'x'.join('n' if d < 0 else str(d) for d in s.shape)}]" for s in specs
    )


def print_variants(view: ModelVersionView) -> None:
    """Print a version's variants, in the order in which they are offered."""
    from rich.text import Text

    from orchestrator.cli import console
    from orchestrator.cli.output import Cell, print_table

    rows: list[list[Cell]] = []
    for index, variant in enumerate(view.manifest.variants):
        accuracy = figure(variant, "test")
        bench = next((b for b in variant.benchmarks if b.batch == 1), None)
        rows.append(
            [
                Text("●" if index == 0 else " ", "green"),
                Text(variant.id, "bold" if index == 0 else ""),
                variant.scheme,
                console.percent(accuracy.value),
                f"{100 * accuracy.low:.1f}-{100 * accuracy.high:.1f}",
                f"{accuracy.split}, n={accuracy.n}",
                console.size(variant.file.size),
                console.ms(bench.p50_ms if bench else None),
                console.ms(bench.p95_ms if bench else None),
            ]
        )
    headings = ["", "VARIANT", "SCHEME", "ACCURACY", "95 % CI", "ON", "SIZE", "P50", "P95"]
    print_table(headings, rows)
    for rejected in view.manifest.rejected:
        reason = console.clean(rejected.reason)
        console.out().print(Text(f"✗ {rejected.id}: {reason}", "dim"), soft_wrap=True)
    console.say("● is offered first to a device that can run it", style="dim")
