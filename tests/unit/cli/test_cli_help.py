"""Help as a newcomer reads it, at 80 columns: every command in a group, every option in words."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator

import pytest
import rich_click as click

from edge_client.cli import cli
from orchestrator.cli.main import root
from schemas.commands import LazyGroup

WIDTH = 80
_CUT = re.compile(r"<[^>]*[a-z]…(\s|$)")  # of a list of choices


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            is_lazy = isinstance(command, LazyGroup)
            yield from commands(command.load(name) if is_lazy else inner, f"{path} {name}")


PROGRAMS = {"argosy": root, "argosy-edge": cli}
ALL = [one for name, program in PROGRAMS.items() for one in commands(program, name)]
SHOWN = re.compile(r"argosy-edge.*|argosy( (rollout|device|fleet|experiment|simulate)( .*)?)?")
PATHS = [path for path, _ in ALL if SHOWN.fullmatch(path)]


def shown(path: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    program, *words = path.split()
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        PROGRAMS[program].main([*words, "--help"], prog_name=program, standalone_mode=False)
    return out.getvalue()


@pytest.mark.parametrize("path", PATHS)
def test_help_fits_a_terminal_and_cuts_nothing_off(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown(path, monkeypatch).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert not [line for line in lines if _CUT.search(line)]


@pytest.mark.parametrize("path", [path for path, one in ALL if isinstance(one, click.Group)])
def test_every_command_stands_in_a_group(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Commands:" not in shown(path, monkeypatch)


def test_every_option_is_told_in_words() -> None:
    silent = [
        (path, one.opts)
        for path, command in ALL
        for one in command.params
        if isinstance(one, click.Option) and not one.help
    ]
    assert len(ALL) > 90
    assert not silent
    assert all(command.help for _, command in ALL)
