"""Command groups of our programs: a command is imported only when it is called."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import rich_click as click


@dataclass(frozen=True, slots=True)
class Entry:
    """A command that is not imported yet.

    target: ``module:attribute``. help: its line in the list of commands.
    """

    target: str
    help: str


class LazyGroup(click.RichGroup):
    """Lists its commands by their help lines and loads the one that is called."""

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
