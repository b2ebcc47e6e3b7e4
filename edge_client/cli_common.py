"""What the commands of ``argosy-edge`` share: the home's option, the log, the end."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

import rich_click as click

from schemas.errors import Exit

home_option = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="ARGOSY_EDGE_HOME",
    default=Path("~/.argosy-edge"),
    show_default=True,
    help="Folder with the device's identity and models  [env: ARGOSY_EDGE_HOME].",
)


def log_to_stderr() -> None:
    """Log there, from the level in ``$ARGOSY_LOG`` on."""
    logging.basicConfig(
        stream=sys.stderr,
        level=os.environ.get("ARGOSY_LOG", "INFO").upper(),
        format="%(asctime)s %(levelname).1s %(message)s",
        datefmt="%H:%M:%S",
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)


def end(code: Exit) -> NoReturn:
    """Leave without waiting for threads of libraries that may be stuck in the network."""
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
    os._exit(code)
