"""What the commands of ``argosy-edge`` share: lazy loading, the home's option, the log, the end."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import rich_click as click

from schemas.errors import Exit

home_option = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="ARGOSY_EDGE_HOME",
    default=Path("~/.argosy-edge"),
    show_default=True,
    help="Folder with the device's identity and models.",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A command that is not imported yet.

    target: ``module:attribute``. help: its line in the list of commands.
    """

    target: str
    help: str


class LazyGroup(click.RichGroup):
    """Lists its commands by their help lines, and imports the one that is called."""

    def __init__(self, *args: Any, entries: dict[str, Entry], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.entries = entries
        for name, entry in entries.items():
            self.add_command(click.RichCommand(name=name, help=entry.help), name)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The commands in the order in which they are declared."""
        return list(self.entries)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called, and import it."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in self.entries:
            command = self.load(name)
        return name, command, rest

    def load(self, name: str) -> click.Command:
        """Import the command of that name."""
        module, _, attribute = self.entries[name].target.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


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
