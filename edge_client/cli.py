"""``argosy-edge``: enroll a device, run its agent, say how it is."""

from __future__ import annotations

import datetime as dt
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import rich_click as click

from edge_client.errors import EdgeError
from edge_client.span import Span
from schemas.errors import Exit

if TYPE_CHECKING:
    from schemas.enroll import EnrollPending

MAX_LINE = 8192

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
@click.option("--server", envvar="ARGOSY_SERVER", metavar="URL", help="Address of the server.")
@_HOME
@click.option("--wait", type=Span(), default="10m", show_default=True, metavar="TIME",
              help="How long to wait for an operator's approval.")  # fmt: skip
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Use this private key, which the token names.")  # fmt: skip
@click.option("--qr-text", is_flag=True,
              help="While it waits, draw the command that approves it as a QR code.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace the identity that is there.")
@click.option("--insecure-http", is_flag=True,
              help="Send the token unencrypted, on a network that you trust.")  # fmt: skip
def enroll(
    token: str,
    server: str | None,
    home: Path,
    wait: float,
    key: Path | None,
    *,
    qr_text: bool,
    force: bool,
    insecure_http: bool,
) -> None:
    """Get an identity with a join token.

    TOKEN is what `argosy token create` printed, or the whole command that it printed, in quotes;
    it can come from $ARGOSY_TOKEN, or from standard input when it is `-`, which keeps it out
    of the shell's history. Cut off, the same command goes on where it was.
    """
    from edge_client import enroll_command as command  # noqa: PLC0415 - a quick --help
    from edge_client.settings import Home  # noqa: PLC0415 - likewise

    if insecure_http:
        click.echo("WARNING: without TLS, whoever is on the way can take the join token", err=True)
    text = sys.stdin.readline(MAX_LINE) if token == "-" else token  # noqa: S105 - a file name
    options = command.Options(
        token=text, server=server, wait=wait, key=key, force=force, insecure_http=insecure_http
    )
    voice = command.Voice(
        say=partial(click.echo, err=True), pending=partial(_show_pending, qr_text=qr_text)
    )
    try:
        record = command.enroll_device(Home(home.expanduser()), options, voice).record
    except KeyboardInterrupt:
        click.echo("not enrolled yet; give the same command again to go on", err=True)
        raise
    click.echo(f"enrolled as {record.device} (class {record.device_class})", err=True)
    click.echo(f"next: argosy-edge run --home {home}", err=True)


def _show_pending(pending: EnrollPending, *, qr_text: bool) -> None:
    approve = f"argosy device approve {pending.device}"
    click.echo(f"waiting for approval of {pending.device}", err=True)
    click.echo(f"this device's fingerprint is {pending.fingerprint}", err=True)
    click.echo(f"if the operator sees the same one: {approve}", err=True)
    if qr_text:
        import segno  # noqa: PLC0415 - a quick --help

        segno.make(approve, micro=False).terminal(sys.stderr, compact=True)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def key(file: Path) -> None:
    """Make a private key in FILE, or read the one there, and print the SHA-256 of its public half.

    It is for `argosy token create --key SHA256`: then only the device with this key can use the
    token, and nobody has to approve it.
    """
    from edge_client import enroll_command as command  # noqa: PLC0415 - a quick --help

    sha256, made = command.make_key(file)
    click.echo(sha256)
    click.echo(f"{'made' if made else 'kept'} {file}; it must not leave this device", err=True)
    click.echo(f"next: argosy token create --key {sha256}", err=True)
    click.echo(f"then: argosy-edge enroll TOKEN --server URL --key {file}", err=True)


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
@click.option("--https/--no-https", default=False, show_default=True, envvar="ARGOSY_EDGE_HTTPS",
              help="Fetch models by HTTPS where the server offers it.")  # fmt: skip
@click.option("--disk-quota", type=click.IntRange(min=1), default=2 * 1024**3, metavar="BYTES",
              help="Room for models.  [default: 2 GiB]")  # fmt: skip
@click.option("--bench/--no-bench", default=True, show_default=True, envvar="ARGOSY_EDGE_BENCH",
              help="Measure each variant once, in peace, after it became active.")  # fmt: skip
@click.option("--watchdog", type=click.FloatRange(0.5, 86_400), default=60.0, show_default=True,
              envvar="ARGOSY_EDGE_WATCHDOG", metavar="SECONDS",
              help="End the agent when it, or an inference, hangs for so long.")  # fmt: skip
@click.option("--once", is_flag=True, help="End after one update: 0 if it succeeded, else 7.")
def run(
    home: Path,
    source: Path | None,
    rate: float,
    window: float,
    bandwidth: int | None,
    disk_quota: int,
    watchdog: float,
    *,
    https: bool,
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
        hang_seconds=watchdog,
        https=https,
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
@click.option("--to-fallback", is_flag=True,
              help="Also while an update is under way, which is then given up.")  # fmt: skip
@click.option("--wait", type=Span(), default="60s", show_default=True, metavar="TIME",
              help="How long the running agent may take.")  # fmt: skip
def rollback(home: Path, wait: float, *, to_fallback: bool) -> None:
    """Put the model before back, whether the agent runs or not.

    On probation this ends the update; later it takes it back. The server hears of it, and does
    not send the version again until the next rollout.
    """
    from edge_client.rollback import in_words  # noqa: PLC0415 - a quick --help
    from edge_client.rollback_command import roll_back  # noqa: PLC0415 - likewise
    from edge_client.settings import Home  # noqa: PLC0415 - likewise

    slot = roll_back(Home(home.expanduser()), give_up=to_fallback, wait=wait)
    click.echo(f"active: {in_words(slot)}", err=True)


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
    logging.getLogger("httpx").setLevel(logging.WARNING)


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
