"""``argosy model ls`` and ``get``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option, output_option

if TYPE_CHECKING:
    from orchestrator.cli.output import Cell, Shape
    from schemas.measure import MeasuredVariant
    from schemas.model import ModelVersionView, ModelView


@click.command()
@home_option
@output_option
def ls(home: Path | None, form: str) -> None:
    """List models."""
    from orchestrator.cli.output import emit_list
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        models = list(argosy.models.list())
    empty = "no models: train one with `argosy job submit FILE`"
    emit_list(models, form, model_shape(), empty)


@click.command()
@click.argument("ref", metavar="MODEL[@VERSION]")
@click.option("--passes", is_flag=True, help="Show every step from the weights to the variants.")
@home_option
@output_option
def get(*, ref: str, passes: bool, home: Path | None, form: str) -> None:
    """Show a version: its variants, their figures, where it came from.

    VERSION is a number or an alias; left out, it is the latest.
    """
    from orchestrator.cli.output import emit_one
    from orchestrator.cli.refs import load
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        view = load(argosy, ref)
    emit_one(view, form, version_shape(), show_version)
    if passes and form == "table":
        print_passes(view)


def model_shape() -> Shape[ModelView]:
    """A model as a row."""
    from orchestrator.cli import console
    from orchestrator.cli.output import Shape

    return Shape(
        lambda view: view.name,
        ("NAME", lambda view: view.name),
        ("VERSIONS", lambda view: str(len(view.versions))),
        ("LATEST", lambda view: str(max(view.versions, default=console.NONE))),
        (
            "ALIASES",
            lambda view: " ".join(f"{k}={v}" for k, v in view.aliases.items()) or console.NONE,
        ),
    )


def version_shape() -> Shape[ModelVersionView]:
    """A version by its name."""
    from orchestrator.cli.output import Shape

    return Shape(lambda v: f"{v.model}@{v.version}")


def show_version(view: ModelVersionView) -> None:
    """Print a version for people."""
    from orchestrator.cli import console
    from orchestrator.cli.model_text import lineage_facts, state, tensors
    from orchestrator.cli.output import print_facts

    manifest = view.manifest
    steps = [
        *(op.op for op in manifest.preprocess),
        "model",
        *(op.op for op in manifest.postprocess),
    ]
    labels = f"{len(manifest.labels)} classes" if manifest.labels else None
    why = f": {console.clean(view.revoked_reason)}" if view.revoked_reason else ""
    facts: list[tuple[str, Cell | None]] = [
        ("model", f"{view.model}@{view.version}"),
        ("state", console.state(state(view)).append(why, "default")),
        ("aliases", ", ".join(view.aliases)),
        ("tags", ", ".join(view.tags)),
        ("note", view.note),
        ("registered", f"{view.created_at.astimezone():%Y-%m-%d %H:%M:%S}"),
        ("input", tensors(manifest.signature.inputs)),
        ("output", tensors(manifest.signature.outputs)),
        ("labels", labels),
        ("steps", ", ".join(steps) if len(steps) > 1 else None),
        *lineage_facts(manifest.lineage),
        ("manifest", view.manifest_sha256),
    ]
    print_facts(facts)
    console.out().print()
    print_variants(view)
    print_measured(view)
    _print_exports(view)


def print_variants(view: ModelVersionView) -> None:
    """Print a version's variants, in the order in which they are offered."""
    from rich.text import Text

    from orchestrator.cli import console
    from orchestrator.cli.model_text import drop, figure, interval, needs, precision, pruned, single
    from orchestrator.cli.output import print_table

    rows: list[list[Cell]] = []
    for index, variant in enumerate(view.manifest.variants):
        accuracy, bench = figure(variant, "test"), single(variant)
        rows.append(
            [
                Text("●" if index == 0 else "○" if variant.front else " ", "green"),
                Text(variant.id, "bold" if index == 0 else ""),
                precision(variant),
                pruned(variant),
                console.percent(accuracy.value if accuracy else None),
                interval(accuracy),
                drop(variant.paired),
                console.size(variant.file.size),
                console.size(variant.compressed_bytes),
                console.ms(bench.p50_ms if bench else None),
                needs(variant.requires),
            ]
        )
    headings = ["", "VARIANT", "PRECISION", "PRUNED", "ACCURACY", "95 % CI", "DROP", "SIZE", "ZSTD"]
    print_table(*_told([*headings, "P50", "NEEDS"], rows))
    for rejected in view.manifest.rejected:
        reason = console.clean(rejected.reason)
        console.out().print(Text(f"✗ {rejected.id}: {reason}", "dim"), soft_wrap=True)
    _print_budgets(view)
    console.say(_legend(view), style="dim")


def _print_budgets(view: ModelVersionView) -> None:
    """Print what of it fits the budgets to which the search was held."""
    from rich.text import Text

    from orchestrator.cli import console
    from orchestrator.cli.model_budgets import fitting, limits

    for name, budget in view.manifest.budgets.items():
        fits = fitting(view.manifest, budget)
        found = ", ".join(console.clean(one) for one in fits) or "no variant fits"
        text = f"class {console.clean(name)}, {limits(budget)}: {found}"
        console.out().print(Text(text, "dim" if fits else "yellow"), soft_wrap=True)


def _legend(view: ModelVersionView) -> str:
    """What the columns mean, as far as this version has them."""
    from orchestrator.cli import console
    from orchestrator.cli.model_text import figure, single

    variants = view.manifest.variants
    parts = ["● is offered first to a device that can run it"]
    if any(variant.front for variant in variants[1:]):
        parts.append("○ has something that no other is better at")
    measured = figure(variants[0], "test")
    if measured is not None:
        parts.append(f"accuracy on {console.clean(measured.split)}, n={measured.n}")
    if any(variant.paired for variant in variants):
        parts.append("drop in points against FP32, in pairs on validation")
    bench = single(variants[0])
    if bench is not None:
        parts.append(f"P50 of single runs on {console.clean(bench.host)}")
    return "; ".join(parts)


def print_measured(view: ModelVersionView) -> None:
    """Print what devices measured, by class, and what is expected of the others."""
    from orchestrator.cli import console
    from orchestrator.cli.model_measured import on_classes
    from orchestrator.cli.output import print_table

    rows: list[list[Cell]] = []
    for one in on_classes(view):
        found = one.measured
        rows.append(
            [
                one.device_class,
                one.variant,
                console.ms(one.p50_ms),
                console.ms(found.p95_ms if found else None),
                console.ms(found.cpu_ms if found else None),
                console.ms(found.load_ms if found else None),
                console.size(_bytes(found.rss_growth_mb) if found else None),
                _energy(found),
                _origin(found),
            ]
        )
    if not rows:
        return
    console.out().print()
    heads = ["CLASS", "VARIANT", "P50", "P95", "CPU", "LOAD", "MEMORY", "ENERGY", "FROM"]
    print_table(*_told(heads, rows))


def print_passes(view: ModelVersionView) -> None:
    """Print each step from the trained weights to a variant."""
    from orchestrator.cli import console
    from orchestrator.cli.job_text import plain_value
    from orchestrator.cli.output import print_table

    rows: list[list[Cell]] = [
        [
            one.name,
            one.variant or console.NONE,
            one.input_sha256[:12],
            one.output_sha256[:12],
            " ".join(f"{k}={plain_value(v)}" for k, v in one.parameters.items()),
        ]
        for one in view.manifest.lineage.passes
    ]
    if not rows:
        console.say("no passes are noted", style="dim")
        return
    console.out().print()
    print_table(["PASS", "VARIANT", "FROM", "TO", "PARAMETERS"], rows)


def _print_exports(view: ModelVersionView) -> None:
    from orchestrator.cli import console
    from orchestrator.cli.output import print_table

    rows: list[list[Cell]] = [
        [e.format, e.file.path, console.size(e.file.size), f"{e.parity_max_abs:.2g}"]
        for e in view.manifest.exports
    ]
    if rows:
        console.out().print()
        print_table(["FORMAT", "FILE", "SIZE", "OFF TORCH BY"], rows)


def _told(headings: list[str], rows: list[list[Cell]]) -> tuple[list[str], list[list[Cell]]]:
    """The table without the columns in which no row says anything."""
    from orchestrator.cli import console

    kept = [
        i
        for i, _ in enumerate(headings)
        if i == 0 or any(str(row[i]) not in {"", console.NONE} for row in rows)
    ]
    return [headings[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _origin(found: MeasuredVariant | None) -> str:
    from orchestrator.cli import console

    if found is None:
        return "estimated"
    devices = "1 device" if found.devices == 1 else f"{found.devices} devices"
    return f"measured on {devices}, {console.age(found.at)} ago"


def _energy(found: MeasuredVariant | None) -> str:
    from orchestrator.cli import console

    known = found.millijoules if found else None
    return console.NONE if known is None else f"{known:.3g} mJ"


def _bytes(mebibytes: float | None) -> int | None:
    return None if mebibytes is None else int(mebibytes * 1024**2)
