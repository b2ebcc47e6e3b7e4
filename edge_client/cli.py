"""``argosy-edge``: enroll a device, run its agent, say how it is."""

from __future__ import annotations

import datetime as dt
import logging
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

import rich_click as click

from edge_client.errors import EdgeError
from schemas.errors import Exit

_HOME = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="ARGOSY_EDGE_HOME",
    default=Path("~/.argosy-edge"),
    show_default=True,
    help="Folder with the device's identity and models.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="argosy", prog_name="argosy-edge")
def cli() -> None:
    """The device side of Argosy."""


@cli.command()
@click.argument("token", envvar="ARGOSY_TOKEN")
@click.option("--server", required=True, envvar="ARGOSY_SERVER", help="Address of the server.")
@_HOME
@click.option("--force", is_flag=True, help="Replace the identity that is there.")
def enroll(token: str, server: str, home: Path, *, force: bool) -> None:
    """Get an identity with a join token.

    TOKEN is what `argosy token create` printed; it can come from $ARGOSY_TOKEN, or from
    standard input when it is `-`, which keeps it out of the shell's history.
    """
    from edge_client import enroll as enrollment  # noqa: PLC0415 - a quick --help
    from edge_client.hardware import hardware  # noqa: PLC0415 - likewise
    from edge_client.identity import refuse_if_enrolled, save_identity  # noqa: PLC0415 - likewise
    from edge_client.lock import agent_lock  # noqa: PLC0415 - likewise
    from edge_client.settings import Home  # noqa: PLC0415 - likewise

    text = sys.stdin.readline(1000) if token == "-" else token  # noqa: S105 - a file name
    parsed, url = enrollment.parse_token(text), enrollment.parse_server(server)
    where = Home(home.expanduser())
    if not force:
        refuse_if_enrolled(where)
    with agent_lock(where):
        new = enrollment.enroll(parsed, url, hardware=hardware())
        save_identity(where, new)
    click.echo(f"enrolled as {new.record.device} (class {new.record.device_class})", err=True)
    click.echo(f"next: argosy-edge run --home {home}", err=True)


@cli.command()
@_HOME
@click.option(
    "--source",
    type=click.Path(path_type=Path, dir_okay=False),
    help="npz with x, or an array for each input, and perhaps y: samples to infer over and over.",
)
@click.option("--rate", type=click.FloatRange(0.001, 10_000), default=10.0, show_default=True,
              help="Samples a second.")  # fmt: skip
@click.option("--window", type=click.FloatRange(0.2, 3600), default=5.0, show_default=True,
              help="Seconds between telemetry windows.")  # fmt: skip
@click.option("--bandwidth", type=click.IntRange(min=1024), metavar="BYTES_PER_S",
              help="Fetch models no faster than this.")  # fmt: skip
@click.option("--disk-quota", type=click.IntRange(min=1), default=2 * 1024**3, metavar="BYTES",
              help="Room for models.  [default: 2 GiB]")  # fmt: skip
@click.option("--bench/--no-bench", default=True, show_default=True, envvar="ARGOSY_EDGE_BENCH",
              help="Measure each variant once, in peace, after it became active.")  # fmt: skip
@click.option("--once", is_flag=True, help="End after one update: 0 if it succeeded, else 7.")
def run(
    home: Path,
    source: Path | None,
    rate: float,
    window: float,
    bandwidth: int | None,
    disk_quota: int,
    *,
    bench: bool,
    once: bool,
) -> None:
    """Serve the active model, and take updates, until SIGTERM or SIGINT."""
    from edge_client.agent import Agent  # noqa: PLC0415 - a quick --help
    from edge_client.lock import agent_lock  # noqa: PLC0415 - likewise
    from edge_client.settings import Home, RunSettings  # noqa: PLC0415 - likewise

    _log_to_stderr()
    where = Home(home.expanduser())
    settings = RunSettings(
        source=source,
        rate=rate,
        window=window,
        bandwidth=bandwidth,
        disk_quota=disk_quota,
        bench=bench,
        once=once,
    )
    with agent_lock(where):
        agent = Agent(where, settings)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: agent.stop())
        code = agent.run()
    _end(code)


@cli.command()
@_HOME
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True
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


@cli.command()
@click.argument("model", required=False)
@_HOME
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
        sys.exit(Exit.FAILED if command.bench_quietly(where).failed else Exit.OK)
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


def _log_to_stderr() -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=os.environ.get("ARGOSY_LOG", "INFO").upper(),
        format="%(asctime)s %(levelname).1s %(message)s",
        datefmt="%H:%M:%S",
    )


def _end(code: Exit) -> NoReturn:
    """Leave without waiting for threads of libraries that may be stuck in the network."""
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
    os._exit(code)


def main() -> None:
    """Run the program; every error is one line, and its exit code says what kind."""
    try:
        cli(standalone_mode=False)
    except EdgeError as error:
        click.echo(f"error: {error}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        sys.exit(error.exit)
    except click.ClickException as error:
        error.show()
        sys.exit(Exit.USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(Exit.INTERRUPTED)
    except OSError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(Exit.FAILED)
