"""The server process: API, gateway and control loop. ``python -m orchestrator.server``."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import click
import uvicorn

from orchestrator.adapters.authority.served import given_to, keep_serving
from orchestrator.api.headers import HSTS
from orchestrator.bootstrap import Program, build
from orchestrator.connection import guarded, modern_tls
from orchestrator.errors import ArgosyError
from orchestrator.home import Home
from orchestrator.settings import Settings, load

_GRACE_SECONDS = 1


class _Server(uvicorn.Server):
    """Uvicorn that ends event streams the moment it is told to stop."""

    def __init__(
        self, config: uvicorn.Config, program: Program, certificate: Path, key: Path
    ) -> None:
        super().__init__(config)
        self._program = program
        self._certificate, self._key = certificate, key
        self._look: Callable[[], None] | None = None

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: a new certificate is served without a restart."""
        context = self.config.ssl
        if context is not None:
            if self._look is None:
                self._look = keep_serving(context, self._certificate, self._key)
            self._look()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._program.context.stopping.set()
        super().handle_exit(sig, frame)


def spare_collections() -> None:
    """Look for cycles of garbage more rarely.

    A batch of messages makes tens of thousands of objects and no cycle; at the default rate,
    looking for one took half of the time in which they are stored.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def serve(settings: Settings) -> None:
    """Serve until a signal comes."""
    home = Home(settings.home)
    program = build(settings)
    tls, given = settings.tls, given_to(settings)
    certificate = given.certificate if given else home.server_pem
    key = given.key if given else home.server_key
    config = uvicorn.Config(
        program.app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        http=guarded(settings.trusted_proxies),
        loop="orchestrator.connection:GuardedLoop",
        # Of whom the client's address is believed: by default of nobody.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=(settings.trusted_proxies or "").split(","),
        headers=[HSTS] if tls else [],
        timeout_graceful_shutdown=_GRACE_SECONDS,
        ssl_certfile=certificate if tls else None,
        ssl_keyfile=key if tls else None,
        ssl_context_factory=(lambda _config, make: modern_tls(make())) if tls else None,
    )
    for sig in (signal.SIGINT, signal.SIGTERM):
        # Uvicorn raises the signal again when it is done; the default would kill the
        # process there, before the gateway has left the broker properly.
        signal.signal(sig, lambda *_: None)
    spare_collections()
    program.start()
    try:
        _Server(config, program, certificate, key).run()
    finally:
        program.stop()


@click.command()
@click.option("--home", help="the platform's folder")
def main(home: str | None) -> None:
    """Run the API, the gateway and the control loop."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # Per request and per packet: too much for a log that people read.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        serve(load(os.environ, home=home))
    except ArgosyError as error:
        click.echo(f"error: {error.detail}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        sys.exit(error.exit)


if __name__ == "__main__":
    main()
