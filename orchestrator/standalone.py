"""The server without a supervisor of ours: for containers and service managers.

``python -m orchestrator.standalone`` prepares the home as ``argosy up`` does and becomes
``orchestrator.server``. Whatever started it restarts it. Agents elsewhere get their
address and token through a folder that both see.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path

import click

from orchestrator.errors import ArgosyError, Unavailable
from orchestrator.home import Credentials, Home, write_atomic, write_json
from orchestrator.settings import Settings, load
from orchestrator.supervisor import prepare
from orchestrator.wiring.database import prepare_database


def share(settings: Settings, folder: Path) -> None:
    """Write what an agent in another container needs: ``worker.json`` and ``ca.pem``.

    It is seen there under the same path, and reaches the API at its advertised address.

    Raises:
        Unavailable: the folder cannot be written.
    """
    home = Home(settings.home)
    ca = folder / "ca.pem"
    found = Credentials(settings.advertised_url, home.worker().token, str(ca))
    try:
        write_atomic(ca, home.ca_pem.read_bytes(), 0o644)
        write_json(folder / "worker.json", asdict(found))
    except OSError as error:
        msg = f"cannot write {error.filename or folder}: {error.strerror}"
        raise Unavailable(msg, hint="name a folder that exists and is ours") from error


@click.command()
@click.option("--home", help="the platform's folder")
@click.option(
    "--share",
    "shared",
    type=click.Path(file_okay=False, path_type=Path),
    help="a folder that agents see under the same path: their address and token go there",
)
def main(home: str | None, shared: Path | None) -> None:
    """Prepare the home, then become the server."""
    try:
        settings = load(os.environ, home=home)
        if settings.embedded_broker:
            msg = "no broker is named, and nothing here starts one"
            hint = "set ARGOSY_BROKER_URL, or run argosy up instead"
            raise Unavailable(msg, hint=hint)
        prepare(settings, prepare_database)
        if shared is not None:
            share(settings, shared)
    except ArgosyError as error:
        click.echo(f"error: {error.detail}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        sys.exit(error.exit)
    server = [sys.executable, "-m", "orchestrator.server", "--home", str(settings.home)]
    os.execve(sys.executable, server, {**os.environ, **settings.to_env()})  # noqa: S606 - no shell


if __name__ == "__main__":
    main()
