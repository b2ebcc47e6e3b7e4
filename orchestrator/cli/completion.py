"""``argosy completion``: the script that lets a shell complete commands."""

from __future__ import annotations

import rich_click as click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a shell's completion script.

    In bash: add `eval "$(argosy completion bash)"` to ~/.bashrc.
    """
    from orchestrator.cli.main import root

    kind = get_completion_class(shell)
    if kind is None:
        msg = f"{shell} is not supported by this version of click"
        raise click.ClickException(msg)
    click.echo(kind(root, {}, "argosy", "_ARGOSY_COMPLETE").source())
