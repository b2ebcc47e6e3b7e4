"""``argosy job profile``: what was found in a job's data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option, output_option

if TYPE_CHECKING:
    from schemas.dataset import DatasetProfile

_BAR = 24
_CLASSES = 40
"""Classes shown; of more, the rarest and the most frequent."""


@click.command()
@click.argument("job_id", metavar="JOB")
@home_option
@output_option
def profile(job_id: str, home: Path | None, form: str) -> None:
    """Show what JOB found in its data: sizes, classes, duplicates, leaks, problems."""
    from orchestrator.cli.output import Shape, emit_one
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        found = argosy.jobs.profile(job_id)
    shape: Shape[DatasetProfile] = Shape(lambda one: one.sha256)
    emit_one(found, form, shape, show_profile)


def show_profile(found: DatasetProfile) -> None:
    """Print a profile for people."""
    from orchestrator.cli import console

    _splits(found)
    _classes(found)
    _overlaps(found)
    console.out().print()
    if not found.problems:
        console.say("✓ no problems", style="green")
    for problem in found.problems:
        console.out().print(f"! {console.clean(problem)}", style="yellow", soft_wrap=True)
    notes = [f"fingerprint {found.sha256[:16]}"]
    if found.sampled:
        notes.append(f"statistics of inputs over {found.sampled:,} samples a split")
    notes += [f"took {console.duration(found.seconds)}"] if found.seconds else []
    console.say(", ".join(notes), style="dim")


def _splits(found: DatasetProfile) -> None:
    from orchestrator.cli.output import print_table

    headings = (
        "SPLIT", "SAMPLES", "CLASSES", "DUPLICATES", "CONFLICTS", "NOT FINITE", "OUT OF RANGE",
    )  # fmt: skip
    rows = [
        [
            split.split,
            f"{split.n:,}",
            str(len(split.classes)),
            f"{split.duplicates:,}",
            f"{split.conflicts:,}",
            f"{split.not_finite:,}",
            f"{split.out_of_range:,}",
        ]
        for split in found.splits
    ]
    print_table(headings, rows)


def _classes(found: DatasetProfile) -> None:
    from rich.text import Text

    from orchestrator.cli import console
    from orchestrator.cli.output import Cell, print_table

    splits = [split for split in found.splits if split.classes]
    if not splits:
        return
    first = splits[0]
    total, most = sum(first.classes.values()), max(first.classes.values())
    console.out().print()
    rows: list[list[Cell]] = []
    every = sorted(set().union(*(split.classes for split in splits)))
    for label in chosen_classes(every, first.classes):
        count = first.classes.get(label, 0)
        bar = Text("█" * max(round(_BAR * count / max(most, 1)), 1 if count else 0), "cyan")
        counts = [f"{split.classes.get(label, 0):,}" for split in splits]
        rows.append([str(label), *counts, console.percent(count / max(total, 1)), bar])
    print_table(
        ["CLASS", *(split.split.upper() for split in splits), f"OF {first.split.upper()}", ""], rows
    )
    if len(every) > len(rows):
        text = f"{len(every) - len(rows)} classes between them are not shown; -o json has all"
        console.say(text, style="dim")


def chosen_classes(labels: list[int], counts: dict[int, int], room: int = _CLASSES) -> list[int]:
    """All labels where they fit; else the most frequent and the rarest, by their number."""
    if len(labels) <= room:
        return labels
    ordered = sorted(labels, key=lambda label: (-counts.get(label, 0), label))
    half = room // 2
    return sorted([*ordered[:half], *ordered[-(room - half) :]])


def _overlaps(found: DatasetProfile) -> None:
    from orchestrator.cli import console
    from orchestrator.cli.output import print_table

    if not found.overlaps:
        return
    console.out().print()
    rows = [
        [one.split, one.other, f"{one.n:,}", console.percent(one.share)] for one in found.overlaps
    ]
    print_table(["SAMPLES OF", "ALSO IN", "COUNT", "SHARE"], rows)
