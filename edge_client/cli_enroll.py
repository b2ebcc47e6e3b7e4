"""``argosy-edge enroll`` and ``key``: how a device gets its identity."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from edge_client.cli_common import home_option
from edge_client.span import Span

if TYPE_CHECKING:
    from schemas.enroll import EnrollPending

MAX_LINE = 8192


@click.command()
@click.argument("token", envvar="ARGOSY_TOKEN")
@click.option(
    "--server",
    envvar="ARGOSY_SERVER",
    metavar="URL",
    help="Address of the server  [env: ARGOSY_SERVER].",
)
@home_option
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


@click.command()
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
