"""``argosy-edge infer``: one input, or a few, from files or standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import rich_click as click

from edge_client.cli_common import home_option


@click.command()
@click.argument("words", metavar="[MODEL] INPUT…", nargs=-1, required=True)
@home_option
@click.option("--version", metavar="N|fallback", help="Another installed version than the active.")
@click.option("--raw", is_flag=True, help="Give the outputs too.")
@click.option("--telemetry/--no-telemetry", default=True, show_default=True,
              help="Count what is inferred, as for any other program.")  # fmt: skip
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Form of the answers.",
)
def infer(
    words: tuple[str, ...],
    home: Path,
    version: str | None,
    output: str,
    *,
    raw: bool,
    telemetry: bool,
) -> None:
    """Infer for each INPUT, and say what the model says.

    INPUT is an npy, npz, json, png or jpg file, or - for JSON on standard input: the values of
    the one input, or an object with each input by its name. MODEL may be left out where the
    device has one.
    """
    from edge_client import infer_command as command  # noqa: PLC0415 - a quick --help
    from edge_client.settings import Home  # noqa: PLC0415 - likewise

    stdin = None
    if command.STDIN in words:
        stdin = sys.stdin.buffer.read(command.MAX_INPUT_BYTES)
    found = command.infer(
        Home(home.expanduser()),
        words,
        stdin,
        version=version,
        raw=raw,
        telemetry=telemetry,
        say=lambda text: click.echo(text, err=True),
    )
    if output == "json":
        click.echo(json.dumps([said.plain() for said in found], indent=1, ensure_ascii=False))
    else:
        click.echo("\n".join(command.table(found)))
