"""How a command that fails says so: one line of error, one of hint, never a traceback."""

from __future__ import annotations

import os
import re
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.text import Text

from orchestrator.cli import console
from orchestrator.client.errors import WaitTimeoutError
from orchestrator.errors import ArgosyError
from schemas.errors import Exit

_LONG = re.compile(r"\S{300,}")
"""What nobody wrote for a person to read: it is repeated in part."""
_REPEATED = 80


class Located(ArgosyError):  # noqa: N818 - as in orchestrator.errors
    """Several things wrong in one file; ``faults`` are (message, hint)."""

    def __init__(self, faults: list[tuple[str, str | None]]) -> None:
        super().__init__(faults[0][0], hint=faults[0][1])
        self.faults = faults

    @property
    def exit(self) -> Exit:
        """A fault of whoever wrote the file."""
        return Exit.USAGE


def say_error(detail: str, hint: str | None = None) -> None:
    """Print ``error: …`` and ``hint: …`` on stderr; further lines of detail stand between."""
    cut = _LONG.sub(lambda found: f"{found[0][:_REPEATED]}…", console.clean(detail))
    first, *rest = cut.splitlines() or [""]
    _line("error: ", "bold red", first)
    for line in rest:
        console.say(f"  {line.strip()}", style="dim")
    if hint:
        _line("hint: ", "cyan", hint)


def _line(label: str, style: str, text: str) -> None:
    body = " ".join(console.clean(text).split())
    console.err().print(Text(label, style).append(body, "not bold default"), soft_wrap=True)


def report(error: BaseException) -> int:
    """Say what went wrong; answer the exit code."""
    if isinstance(error, click.Abort | KeyboardInterrupt):
        console.say("interrupted", style="dim")
        return Exit.INTERRUPTED
    if isinstance(error, click.ClickException):
        say_error(error.format_message(), _usage_hint(error))
        return error.exit_code
    if isinstance(error, Located):
        for detail, hint in error.faults:
            say_error(detail, hint)
        return error.exit
    if isinstance(error, ArgosyError):
        say_error(error.detail, error.hint)
        for fault in error.fields:
            _line(f"  {fault.field}: ", "dim", fault.message)
        return error.exit
    return _unexpected(error)


def _usage_hint(error: click.ClickException) -> str | None:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"see `{context.command_path} --help`" if context is not None else None


def _unexpected(error: BaseException) -> int:
    detail = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    saved = _save(error)
    hint = f"this is a fault of argosy; its traceback is in {saved}" if saved else None
    say_error(detail[:500], hint)
    return Exit.FAILED


def _save(error: BaseException) -> Path | None:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    text = "".join(traceback.format_exception(error))
    try:
        handle, name = tempfile.mkstemp(prefix=f"argosy-{stamp}-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        return None
    return Path(name)


@contextmanager
def may_be_done(what: str, look: str) -> Iterator[None]:
    """Ctrl-C while an answer is waited for undoes nothing: the act may have been done.

    Args:
        what: the act, as in ``rollout rol_1 may have been started``.
        look: the command that shows whether it was.
    """
    try:
        yield
    except KeyboardInterrupt:
        console.say(f"interrupted: {what}; look with `{look}`")
        raise click.exceptions.Exit(Exit.INTERRUPTED) from None


@contextmanager
def detaches(what: str, back: str) -> Iterator[None]:
    """Ctrl-C or a timeout ends the watching, not the thing watched.

    Args:
        what: the thing that goes on.
        back: the command that watches it again.
    """
    try:
        yield
    except WaitTimeoutError as error:
        hint = f"come back with `{back}`"
        raise error.with_hint(hint) from None
    except KeyboardInterrupt:
        console.say(f"detached: {what} goes on; come back with `{back}`")
        raise click.exceptions.Exit(Exit.INTERRUPTED) from None
