"""``argosy model``: the registry. Its commands stand in modules of their own."""

from __future__ import annotations

import rich_click as click

from schemas.commands import Entry, LazyGroup

_HERE = "orchestrator.cli"
_ENTRIES = {
    "ls": Entry(f"{_HERE}.model_show:ls", "List models."),
    "get": Entry(f"{_HERE}.model_show:get", "Show a version: its variants and their figures."),
    "compare": Entry(f"{_HERE}.model_compare:compare", "Show in what two versions differ."),
    "register": Entry(f"{_HERE}.model_register:register", "Import an ONNX file made elsewhere."),
    "optimize": Entry(f"{_HERE}.model_optimize:optimize", "Optimize a version anew."),
    "alias": Entry(f"{_HERE}.model_alias:alias", "Name versions, as in champion."),
    "tag": Entry(f"{_HERE}.model_notes:tag", "Put tags on a version."),
    "note": Entry(f"{_HERE}.model_notes:note", "Write a note on a version."),
    "revoke": Entry(f"{_HERE}.model_revoke:revoke", "Take a version back."),
    "download": Entry(f"{_HERE}.model_files:download", "Fetch a version's files."),
    "export": Entry(f"{_HERE}.model_files:export", "Write one variant for other tools."),
    "gc": Entry(f"{_HERE}.model_gc:gc", "Collect files that nothing needs."),
}


@click.group(cls=LazyGroup, entries=_ENTRIES)
def model() -> None:
    """See and keep what was trained."""
