"""``argosy model compare``: what differs between two versions, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from orchestrator.cli.options import home_option, output_option

if TYPE_CHECKING:
    from orchestrator.cli.job_compare import Row
    from schemas.model import ComparedVariant, Comparison, ModelVersionView

_BATCHED = 32


@click.command()
@click.argument("ref_a", metavar="MODEL@A")
@click.argument("ref_b", metavar="MODEL@B")
@click.option(
    "--variant",
    "variants",
    multiple=True,
    help="Of both versions; given twice, of A and of B  [default: the first of each].",
)
@click.option("--split", help="On which both were measured  [default: test].")
@home_option
@output_option
def compare(
    *,
    ref_a: str,
    ref_b: str,
    variants: tuple[str, ...],
    split: str | None,
    home: Path | None,
    form: str,
) -> None:
    """Show in what version B differs from version A of a model.

    The accuracies are compared sample by sample where both were measured on the same set.
    """
    from orchestrator.cli.output import Shape, emit_one
    from orchestrator.cli.refs import resolve
    from orchestrator.client import Argosy
    from orchestrator.errors import Invalid

    if len(variants) > 2:  # noqa: PLR2004 - of two versions
        detail = f"--variant was given {len(variants)} times"
        raise Invalid(detail, hint="once for both versions, or twice: for A, then for B")
    with Argosy.from_profile(home) as argosy:
        name, a = resolve(argosy, ref_a)
        other, b = resolve(argosy, ref_b)
        if name != other:
            detail = f"{ref_a} and {ref_b} are versions of different models"
            raise Invalid(detail, hint="their samples need not be the same; compare within a model")
        found = argosy.models.compare(
            name,
            a,
            b,
            variant_a=variants[0] if variants else None,
            variant_b=variants[-1] if variants else None,
            split=split,
        )
        views = (argosy.models.version(name, a), argosy.models.version(name, b))
    shape: Shape[Comparison] = Shape(
        lambda c: f"{c.a.model}@{c.a.version} {c.b.model}@{c.b.version}"
    )
    emit_one(found, form, shape, lambda c: _show(c, views))


def _show(found: Comparison, views: tuple[ModelVersionView, ModelVersionView]) -> None:
    from rich.text import Text

    from orchestrator.cli import console
    from orchestrator.cli.job_compare import differing
    from orchestrator.cli.model_text import paired_sentence
    from orchestrator.cli.output import Cell, print_table

    heads = [f"{side.model}@{side.version} {side.variant.id}" for side in (found.a, found.b)]
    rows: list[list[Cell]] = []
    for row in differing([*variant_rows(found), *lineage_rows(views)]):
        texts = [console.NONE if value is None else row.show(value) for value in row.values]
        if texts[0] != texts[1]:  # what differs only in digits that nobody is shown does not
            rows.append([Text(row.key), *texts])
    if rows:
        print_table(["", *heads], rows)
        console.out().print()
    if found.paired is not None:
        text = paired_sentence(heads[0], heads[1], found.paired, found.split)
    else:
        why = console.clean(found.unpaired or "the platform did not say why")
        text = f"not compared in pairs: {why}"
    console.out().print(Text(text), soft_wrap=True)
    if not rows:
        console.say("they are the same in all else", style="dim")


def variant_rows(found: Comparison) -> Iterator[Row]:
    """The figures of both variants, in the order in which people ask for them."""
    from orchestrator.cli import console
    from orchestrator.cli.job_compare import Row
    from orchestrator.cli.model_text import drop, interval, needs, precision, pruned

    def row(
        key: str, of: Callable[[ComparedVariant], Any], show: Callable[[Any], str] = str
    ) -> Row:
        return Row(key, (of(found.a), of(found.b)), show)

    def accuracy(side: ComparedVariant) -> Any:
        return side.variant.accuracy_on(found.split)

    yield row("precision", lambda s: precision(s.variant))
    yield row("pruned", lambda s: pruned(s.variant))
    yield row("kept in float", lambda s: len(s.variant.float_nodes) or None, "{} operators".format)
    yield row(
        f"accuracy, {console.clean(found.split)}",
        accuracy,
        lambda a: f"{console.percent(a.value)} ({interval(a)})",
    )
    yield row("drop from FP32", lambda s: s.variant.paired, drop)
    yield row("size", lambda s: s.variant.file.size, console.size)
    yield row("zstd", lambda s: s.variant.compressed_bytes, console.size)
    for batch in (1, _BATCHED):
        yield from _cost_rows(row, batch)
    yield row("needs", lambda s: needs(s.variant.requires))
    names = sorted({m.device_class for s in (found.a, found.b) for m in s.measured})
    for name in names:
        yield Row(f"P50 on {name}", (_on(found.a, name), _on(found.b, name)), console.ms)


def _cost_rows(row: Callable[..., Row], batch: int) -> Iterator[Row]:
    from orchestrator.cli import console

    def of(side: ComparedVariant, name: str) -> Any:
        own = (b for b in side.variant.benchmarks if b.batch == batch and b.device_class is None)
        found = next(own, None)
        return None if found is None else getattr(found, name)

    label = "" if batch == 1 else f", batch {batch}"
    yield row(f"P50{label}", lambda s: of(s, "p50_ms"), console.ms)
    yield row(f"P95{label}", lambda s: of(s, "p95_ms"), console.ms)
    if batch == 1:
        yield row("load", lambda s: of(s, "load_ms"), console.ms)
        yield row("memory", lambda s: of(s, "rss_growth_mb"), "{:.1f} MiB".format)
        yield row("measured on", lambda s: of(s, "host"), console.clean)


def _on(side: ComparedVariant, device_class: str) -> float | None:
    found = (m.p50_ms for m in side.measured if m.device_class == device_class)
    return next(found, None)


def lineage_rows(views: tuple[ModelVersionView, ModelVersionView]) -> Iterator[Row]:
    """Where both came from."""
    from orchestrator.cli.job_compare import Row
    from orchestrator.cli.model_text import lineage_facts, state, tensors

    facts = [dict(lineage_facts(view.manifest.lineage)) for view in views]
    for label in dict.fromkeys(label for one in facts for label in one):
        yield Row(label, tuple(one.get(label) for one in facts))
    packages = [view.manifest.lineage.environment for view in views]
    for name in sorted({name for one in packages for name in one}):
        yield Row(f"with {name}", tuple(one.get(name) for one in packages))
    yield Row("input", tuple(tensors(v.manifest.signature.inputs) for v in views))
    yield Row("output", tuple(tensors(v.manifest.signature.outputs) for v in views))
    yield Row("state", tuple(state(view) for view in views))
    yield Row("tags", tuple(", ".join(view.tags) or None for view in views))
