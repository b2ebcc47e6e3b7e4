"""``argosy-edge defer`` and ``proceed``: an update later, or now."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from edge_client.cli_common import home_option
from edge_client.span import Span

_wait = click.option(
    "--wait",
    type=Span(),
    default="60s",
    show_default=True,
    metavar="TIME",
    help="How long the agent may take.",
)


@click.command()
@click.argument("model", required=False)
@click.option("--for", "seconds", type=Span(), default="1h", show_default=True, metavar="TIME",
              help="How long, from now.")  # fmt: skip
@home_option
@_wait
def defer(model: str | None, home: Path, seconds: float, wait: float) -> None:
    """Put the update that is under way off, if its rollout allows it.

    Of MODEL, which may be left out. It waits before its download, or before the switch to the new
    version; a download that is under way goes on. The server hears of it.
    """
    from edge_client.settings import Home  # noqa: PLC0415 - a quick --help
    from edge_client.wish_command import ask  # noqa: PLC0415 - likewise

    if seconds <= 0:
        msg = "--for takes more than nothing"
        raise click.UsageError(msg)
    said = ask(Home(home.expanduser()), "defer", model, seconds=seconds, wait=wait)
    click.echo(said, err=True)


@click.command()
@click.argument("model", required=False)
@home_option
@_wait
def proceed(model: str | None, home: Path, wait: float) -> None:
    """Go on with the update that waits, whatever it waits for.

    Of MODEL, which may be left out. From then on it waits for nothing more: no window, no word, no
    earlier `defer`.
    """
    from edge_client.settings import Home  # noqa: PLC0415 - a quick --help
    from edge_client.wish_command import ask  # noqa: PLC0415 - likewise

    click.echo(ask(Home(home.expanduser()), "proceed", model, wait=wait), err=True)
