"""``argosy model alias``: names that move from version to version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option, output_option

if TYPE_CHECKING:
    from schemas.model import ModelView


@click.group()
def alias() -> None:
    """Name versions, as in champion."""


@alias.command("set")
@click.argument("ref", metavar="MODEL@VERSION")
@click.argument("name", metavar="ALIAS")
@click.option(
    "--expected", metavar="VERSION", help="Refuse unless the alias is at this version now."
)
@home_option
@output_option
def set_(*, ref: str, name: str, expected: str | None, home: Path | None, form: str) -> None:
    """Move ALIAS to a version."""
    from orchestrator.cli.authored import build
    from orchestrator.cli.model_show import model_shape
    from orchestrator.cli.output import emit_one
    from orchestrator.cli.refs import resolve, version_of
    from orchestrator.client import Argosy
    from schemas.model import ModelView

    with Argosy.from_profile(home) as argosy:
        model, version = resolve(argosy, ref)
        at = None if expected is None else version_of(argosy, model, expected, "--expected")
        # A name that is none would be answered as a path that is none.
        names = {"aliases": "ALIAS"}
        build(ModelView, names, name=model, versions=(), aliases={name: version})
        view = argosy.models.set_alias(model, name, version, at)
    emit_one(view, form, model_shape(), lambda v: _say(v, f"{name} is {model}@{version}"))


@alias.command()
@click.argument("model", metavar="MODEL")
@click.argument("name", metavar="ALIAS")
@home_option
@output_option
def rm(model: str, name: str, home: Path | None, form: str) -> None:
    """Take ALIAS away; the version stays."""
    from orchestrator.cli.model_show import model_shape
    from orchestrator.cli.output import emit_one
    from orchestrator.cli.refs import model_name
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        view = argosy.models.remove_alias(model_name(model), name)
    emit_one(view, form, model_shape(), lambda v: _say(v, f"{name} is gone"))


@alias.command()
@click.argument("model", metavar="MODEL")
@click.argument("name", metavar="ALIAS")
@home_option
@output_option
def history(model: str, name: str, home: Path | None, form: str) -> None:
    """List where ALIAS was, newest first."""
    from orchestrator.cli import console
    from orchestrator.cli.output import Shape, emit_list
    from orchestrator.cli.refs import model_name
    from orchestrator.client import Argosy
    from schemas.model import AliasChange

    with Argosy.from_profile(home) as argosy:
        changes = list(argosy.models.alias_history(model_name(model), name))

    def version(number: int | None) -> str:
        return console.NONE if number is None else f"{model}@{number}"

    shape: Shape[AliasChange] = Shape(
        lambda change: version(change.version),
        ("AT", lambda change: f"{change.at.astimezone():%Y-%m-%d %H:%M:%S}"),
        ("FROM", lambda change: version(change.before)),
        ("TO", lambda change: version(change.version)),
        ("BY", lambda change: change.by),
    )
    emit_list(changes, form, shape, f"{model} has never had the alias {name}")


def _say(view: ModelView, what: str) -> None:
    from orchestrator.cli import console

    others = ", ".join(f"{k}={v}" for k, v in view.aliases.items())
    console.say(f"{what}; aliases now: {others or 'none'}")
