"""``argosy doctor``: what this machine has and lacks."""

from __future__ import annotations

import os
from pathlib import Path

import rich_click as click


@click.command()
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the platform  [env: ARGOSY_HOME; default: ~/.argosy].",
)
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Form of the result on stdout.",
)
def doctor(home: Path | None, form: str) -> int:
    """Check what this machine has and lacks; exit code 1 if something needed is missing."""
    import json
    from dataclasses import asdict

    from rich.text import Text

    from orchestrator import settings
    from orchestrator.cli import console
    from orchestrator.doctor import checks
    from schemas.errors import Exit

    found = checks(settings.load(os.environ, home=home))
    bad = [check for check in found if not check.ok and check.required]
    code = Exit.FAILED if bad else Exit.OK
    if form == "json":
        click.echo(json.dumps([asdict(check) for check in found], indent=2))
        return code
    width = max(len(check.name) for check in found)
    for check in found:
        mark = Text("✗ ", "red") if check.required else Text("! ", "yellow")
        mark = Text("✓ ", "green") if check.ok else mark
        line = mark.append(f"{check.name:<{width}}  ", "default").append(check.detail, "dim")
        console.out().print(line, soft_wrap=True)
        if not check.ok and check.hint:
            console.out().print(Text(f"  {'':<{width}}  {check.hint}", "cyan"), soft_wrap=True)
    return code
