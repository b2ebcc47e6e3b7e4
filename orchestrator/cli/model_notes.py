"""``argosy model tag`` and ``note``: what people write on a version."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option, output_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas.model import ModelVersionView, VersionNote

_NAMES = {"tags": "TAG", "note": "TEXT"}
_MOST = 64 * 1024
"""Of a note read from stdin; what it may really have, its schema says."""


@click.command()
@click.argument("ref", metavar="MODEL@VERSION")
@click.argument("tags", metavar="TAG…", nargs=-1, required=True)
@click.option("--remove", is_flag=True, help="Take these tags away.")
@home_option
@output_option
def tag(*, ref: str, tags: tuple[str, ...], remove: bool, home: Path | None, form: str) -> None:
    """Put tags on a version. A version with a tag is never collected."""
    from orchestrator.cli import console
    from orchestrator.cli.authored import build
    from orchestrator.cli.model_show import version_shape
    from orchestrator.cli.output import emit_one
    from orchestrator.cli.refs import load
    from orchestrator.client import Argosy
    from schemas.model import VersionNote

    with Argosy.from_profile(home) as argosy:
        view = load(argosy, ref)
        missing = [one for one in tags if one not in view.tags] if remove else []
        for one in missing:
            console.say(f"note: {ref} does not have the tag {one}", style="yellow")
        wanted = _without(view.tags, tags) if remove else _with(view.tags, tags)
        made: VersionNote = build(VersionNote, _NAMES, tags=wanted, note=view.note)
        view = argosy.models.annotate(view.model, view.version, made)
    emit_one(view, form, version_shape(), _say_tags)


@click.command()
@click.argument("ref", metavar="MODEL@VERSION")
@click.argument("text", metavar="TEXT|-")
@home_option
@output_option
def note(*, ref: str, text: str, home: Path | None, form: str) -> None:
    """Write a note on a version, in place of the one it has; - reads it from stdin.

    An empty text takes the note away.
    """
    from orchestrator.cli import console
    from orchestrator.cli.authored import build
    from orchestrator.cli.model_show import version_shape
    from orchestrator.cli.output import emit_one
    from orchestrator.cli.refs import load
    from orchestrator.client import Argosy
    from schemas.model import VersionNote

    written = sys.stdin.read(_MOST).rstrip("\n") if text == "-" else text
    with Argosy.from_profile(home) as argosy:
        view = load(argosy, ref)
        made: VersionNote = build(VersionNote, _NAMES, tags=view.tags, note=written)
        view = argosy.models.annotate(view.model, view.version, made)
    done = "noted" if view.note else "the note is gone"
    emit_one(view, form, version_shape(), lambda v: console.say(f"{v.model}@{v.version}: {done}"))


def _with(there: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*there, *more)))


def _without(there: Sequence[str], fewer: Sequence[str]) -> tuple[str, ...]:
    return tuple(one for one in there if one not in fewer)


def _say_tags(view: ModelVersionView) -> None:
    from orchestrator.cli import console

    console.say(f"{view.model}@{view.version}: tags {', '.join(view.tags) or 'none'}")
