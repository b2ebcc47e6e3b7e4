"""``argosy api-token``: tokens of people, and what each may do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import Span, home_option, output_option
from schemas.access import PEOPLE

if TYPE_CHECKING:
    from orchestrator.cli.output import Shape
    from schemas.access import ApiTokenCreated, ApiTokenView


@click.group()
def api_token() -> None:
    """Let people in, and say what they may do."""


@api_token.command()
@click.argument("name")
@click.option(
    "-r",
    "--role",
    type=click.Choice([role.value for role in PEOPLE]),
    required=True,
    help="For what.",
)
@click.option(
    "--scope", "scopes", multiple=True, help="Only this right of the role; may be repeated."
)
@click.option("--ttl", type=Span(), help="How long it is valid, as in 30d  [default: no end].")
@home_option
@output_option
def create(
    name: str, role: str, scopes: tuple[str, ...], ttl: float | None, home: Path | None, form: str
) -> None:
    """Make a token for a person. It is shown once, and has at most your own rights."""
    from orchestrator.cli.authored import build
    from orchestrator.cli.output import Shape, emit_one
    from orchestrator.client import Argosy
    from schemas.access import ApiTokenRequest

    request = build(
        ApiTokenRequest,
        {"name": "NAME", "role": "--role", "scopes": "--scope", "ttl_seconds": "--ttl"},
        name=name,
        role=role,
        scopes=scopes or None,
        ttl_seconds=None if ttl is None else round(ttl),
    )
    with Argosy.from_profile(home) as argosy:
        made, url = argosy.api_tokens.create(request), argosy.url
    shape: Shape[ApiTokenCreated] = Shape(lambda created: created.token)
    emit_one(made, form, shape, lambda created: _created(created, url))


def _created(made: ApiTokenCreated, url: str) -> None:
    from orchestrator.cli import console

    click.echo(made.token)
    view = made.view
    until = f"{view.expires_at.astimezone():%Y-%m-%d %H:%M}" if view.expires_at else "revoked"
    console.say(
        f"{view.id}: {view.name}, {view.role}, until {until}. It is not shown again.", style="dim"
    )
    console.say(f"its holder signs in with: argosy login {url}", style="dim")


@api_token.command()
@click.option("--all", "every", is_flag=True, help="Revoked ones and expired ones too.")
@home_option
@output_option
def ls(*, every: bool, home: Path | None, form: str) -> None:
    """List tokens, without their secrets."""
    from orchestrator.cli.output import emit_list
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        found = [one for one in argosy.api_tokens.list() if every or _state(one) == "ok"]
    emit_list(found, form, _shape(), "no tokens that work: make one with `argosy api-token create`")


@api_token.command()
@click.argument("token_id", metavar="ID")
@click.option("--force", is_flag=True, help="Also the token that you are using.")
@home_option
@output_option
def revoke(token_id: str, *, force: bool, home: Path | None, form: str) -> None:
    """End a token, and the sessions that began with it, at once."""
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        view = argosy.api_tokens.revoke(token_id, force=force)
    emit_one(view, form, _shape(), None)


def _state(view: ApiTokenView) -> str:
    from datetime import UTC, datetime

    if view.revoked:
        return "REVOKED"
    return "expired" if view.expires_at and view.expires_at <= datetime.now(UTC) else "ok"


def _role(view: ApiTokenView) -> str:
    from schemas.access import SCOPES_OF

    return view.role if set(view.scopes) == SCOPES_OF[view.role] else f"{view.role} (less)"


def _shape() -> Shape[ApiTokenView]:
    from orchestrator.cli import console
    from orchestrator.cli.output import Shape

    return Shape(
        lambda view: view.id,
        ("ID", lambda view: view.id),
        ("NAME", lambda view: view.name or console.NONE),
        ("ROLE", _role),
        (
            "UNTIL",
            lambda view: f"{view.expires_at.astimezone():%Y-%m-%d}" if view.expires_at else "-",
        ),
        ("USED", lambda view: console.age(view.last_used_at)),
        ("STATE", lambda view: console.state(_state(view))),
    )
