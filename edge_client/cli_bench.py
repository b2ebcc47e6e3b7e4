"""``argosy-edge bench``: what the installed variants cost here."""

from __future__ import annotations

import sys
from pathlib import Path

import rich_click as click

from edge_client.cli_common import home_option
from schemas.errors import Exit


@click.command()
@click.argument("model", required=False)
@home_option
@click.option("--rounds", type=click.IntRange(1, 1000), default=16, show_default=True,
              help="Blocks of up to 25 runs, per variant and batch size.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--quietly", is_flag=True, hidden=True, help="As the agent does after an update.")
def bench(model: str | None, home: Path, rounds: int, *, as_json: bool, quietly: bool) -> None:
    """Measure the installed variants on this device, and send the figures to the registry.

    Of MODEL, or of all that is installed: the active variant and its fallback. The agent may
    run; it goes on serving. The figures are sent by the agent, now or when it is connected.
    """
    from edge_client import bench_command as command  # noqa: PLC0415 - a quick --help
    from edge_client.bench import Plan  # noqa: PLC0415 - likewise
    from edge_client.bench_table import notes, table  # noqa: PLC0415 - likewise
    from edge_client.settings import Home  # noqa: PLC0415 - likewise

    where = Home(home.expanduser())
    if quietly:
        sys.exit(Exit.FAILED if command.bench_quietly(where, model).failed else Exit.OK)
    kept = command.bench(where, model, Plan(rounds=rounds))
    if as_json:
        click.echo(kept.benched.model_dump_json(indent=2, exclude_none=True))
    else:
        _show_bench(table(kept.benched), notes(kept.benched))
    if kept.problem is not None:
        raise kept.problem
    if kept.benched.reports:
        when = "is sending" if kept.sender else "sends, once it runs and is connected,"
        click.echo(f"the agent {when} {len(kept.benched.reports)} report(s)", err=True)
    sys.exit(Exit.FAILED if kept.benched.failed else Exit.OK)


def _show_bench(table: list[str], notes: list[str]) -> None:
    if len(table) > 1:
        click.echo("\n".join(table))
    for note in notes:
        click.echo(note, err=True)
