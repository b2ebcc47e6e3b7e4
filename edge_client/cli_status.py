"""``argosy-edge status`` and ``rollback``: what serves, and going back by hand."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import rich_click as click

from edge_client.cli_common import home_option
from edge_client.span import Span


@click.command()
@click.argument("model", required=False)
@home_option
@click.option("--to-fallback", is_flag=True,
              help="Also while an update is under way, which is then given up.")  # fmt: skip
@click.option("--wait", type=Span(), default="60s", show_default=True, metavar="TIME",
              help="How long the running agent may take.")  # fmt: skip
def rollback(model: str | None, home: Path, wait: float, *, to_fallback: bool) -> None:
    """Put the version before back, whether the agent runs or not.

    Of MODEL, which may be left out where the device has one.

    On probation this ends the update; later it takes it back. The server hears of it, and does
    not send the version again until the next rollout.
    """
    from edge_client.rollback import in_words  # noqa: PLC0415 - a quick --help
    from edge_client.rollback_command import roll_back  # noqa: PLC0415 - likewise
    from edge_client.settings import Home  # noqa: PLC0415 - likewise

    slot = roll_back(Home(home.expanduser()), model, give_up=to_fallback, wait=wait)
    click.echo(f"active: {in_words(slot)}", err=True)


@click.command()
@home_option
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Form of the answer.",
)
def status(home: Path, output: str) -> None:
    """Say who the device is, what it serves and what it is doing."""
    from edge_client.settings import Home  # noqa: PLC0415 - a quick --help
    from edge_client.status import lines, read_status  # noqa: PLC0415 - likewise

    found = read_status(Home(home.expanduser()))
    if output == "json":
        click.echo(found.model_dump_json(indent=2))
        return
    for what, value in lines(found, dt.datetime.now(dt.UTC)):
        click.echo(f"{what:<16} {value}")
