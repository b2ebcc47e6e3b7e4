"""The guide to the registry names commands, options, keys and columns that there are."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from orchestrator.cli.main import root
from orchestrator.client import Argosy
from schemas.commands import LazyGroup
from schemas.jobfile import JobSpec
from schemas.measure import MAX_FILE_BYTES
from schemas.model import CollectRequest
from schemas.signature import Signature

GUIDE = Path(__file__).parents[3] / "docs" / "models.md"
TEXT = GUIDE.read_text()
COMMANDS = re.findall(r"^argosy (.+?)(?:\s+#.*)?$", TEXT, re.MULTILINE)
CODE = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that a line calls, imported as the program does it, and its arguments."""
    command: click.Command = root
    rest = words
    while isinstance(command, click.Group):
        context = click.Context(command)
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None, name
        command = found
    return command, rest


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_it_shows_can_be_called_so(line: str) -> None:
    command, arguments = command_of(shlex.split(line))
    command.make_context(line, arguments, resilient_parsing=False)


def test_every_command_of_the_registry_is_shown() -> None:
    group = importlib.import_module("orchestrator.cli.models").model
    assert isinstance(group, LazyGroup)
    assert {name for name in group.entries if f"argosy model {name}" not in TEXT} == set()
    assert len(COMMANDS) > 20


def test_the_files_it_shows_can_be_read() -> None:
    shown = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]
    trained, signature, imported = shown
    assert JobSpec.model_validate(trained, extra="forbid").optimize.classes["cam"].max_size_mb
    assert Signature.model_validate(signature, extra="forbid").inputs[0].layout == "NCHW"
    imported["onnx"] |= {"file": "0" * 64, "size": 1}
    assert JobSpec.model_validate(imported, extra="forbid").onnx is not None


def test_the_columns_it_explains_are_those_of_the_table() -> None:
    source = Path(importlib.import_module("orchestrator.cli.model_show").__file__ or "").read_text()
    told = re.findall(r"^\| `([A-Z0-9 %]+)` \|", TEXT, re.MULTILINE)
    heads = re.search(r'headings = \["", (.*?)\]', source, re.DOTALL)
    assert heads is not None
    assert told == [*ast.literal_eval(f"[{heads[1]}]"), "P50", "NEEDS"]


@pytest.mark.parametrize("code", CODE)
def test_its_python_can_be_compiled(code: str) -> None:
    compile(code, "guide", "exec")


def test_the_methods_it_names_are_there() -> None:
    with Argosy("http://127.0.0.1:1", "arg_key_test") as argosy:
        for part, names in re.findall(r"`argosy\.(\w+)` has ((?:`\w+`(?:, | and )?)+)", TEXT):
            for name in re.findall(r"`(\w+)`", names):
                assert callable(getattr(getattr(argosy, part), name))
        called = set(re.findall(r"argosy\.(\w+)\.(\w+)\(", "".join(CODE)))
        assert {("models", "import_onnx"), ("jobs", "submit")} <= called
        assert all(callable(getattr(getattr(argosy, a), b)) for a, b in called)


def test_its_figures_are_those_of_the_platform() -> None:
    assert f"above {MAX_FILE_BYTES // 1024**2} MiB" in TEXT
    assert CollectRequest().dry_run
