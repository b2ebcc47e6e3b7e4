"""``argosy-transfer``: a process that answers devices' requests for chunks, beside the server.

Any number of them may run on the settings of one platform: same database, same artifacts, same
broker. They share the requests and ``ARGOSY_TRANSFER_RATE``; one that dies takes nothing with it
that devices do not ask for again.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from orchestrator.adapters.artifact_place import open_artifacts
from orchestrator.adapters.broker import Gateway, external_gateway, read_gateway
from orchestrator.adapters.transfer_line import TransferLine
from orchestrator.adapters.unit_of_work import SqlUnitOfWork, make_engine
from orchestrator.clock import utc_now
from orchestrator.errors import ArgosyError, Unavailable
from orchestrator.home import Home
from orchestrator.services.admitted import Admitted, among
from orchestrator.services.chunks import ChunkService
from orchestrator.services.models import ModelService
from orchestrator.services.patches import PatchService, fetchable
from orchestrator.settings import Settings, load

_MAX_WORKERS = 64
"""Of one home, where artifacts lie in a bucket and each keeps a cache."""


def build(settings: Settings, scratch: Path | None = None) -> TransferLine:
    """Make what answers, not yet connected.

    Args:
        settings: the platform's.
        scratch: for the cache of a bucket; no other process's.

    Raises:
        Unavailable: the platform was never started, or its database does not answer.
    """
    address = _address(settings)
    uow = SqlUnitOfWork(make_engine(settings.database))
    artifacts = open_artifacts(settings, scratch)
    models = ModelService(uow, utc_now, artifacts)
    patches = PatchService(uow, utc_now, None)  # made and offered by the server
    ask = among(uow)
    ask(["dev_none"])  # told now, rather than at each request
    return TransferLine(
        address,
        ChunkService(fetchable(models.serves, patches), artifacts),
        Admitted(ask),
        rate=settings.transfer_rate,
    )


def serve(settings: Settings, stop: threading.Event) -> None:
    """Answer until ``stop``; what waits then is sent for a moment."""
    with _scratch(Home(settings.home)) as scratch:
        line = build(settings, scratch)
        line.start()
        stop.wait()
        line.stop()


def _address(settings: Settings) -> Gateway:
    if settings.broker_url is not None:
        return external_gateway(settings.broker_url)
    home = Home(settings.home)
    found = read_gateway(home)
    if found is None:
        msg = f"{home.gateway_json} is missing: this home has not been prepared"
        raise Unavailable(msg, hint="start the platform with `argosy up`, or set ARGOSY_BROKER_URL")
    return found


@contextmanager
def _scratch(home: Home) -> Iterator[Path]:
    """A folder that no other process uses while this one lives; a killed one's is used again."""
    home.artifacts.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in range(_MAX_WORKERS):
        folder = home.artifacts / f"s3-transfer-{number}"
        with folder.with_suffix(".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield folder
            return
    msg = f"{_MAX_WORKERS} transfer processes run on {home.path} already"
    raise Unavailable(msg, hint="end some of them")


@click.command()
@click.option("--home", help="the platform's folder")
def main(home: str | None) -> None:
    """Answer devices' requests for chunks, beside the server."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    stop = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    for sig in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sig, end)
    try:
        serve(load(os.environ, home=home), stop)
    except ArgosyError as error:
        click.echo(f"error: {error.detail}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        sys.exit(error.exit)


if __name__ == "__main__":
    main()
