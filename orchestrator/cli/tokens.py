"""``argosy token``: join tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import Span, home_option, output_option

if TYPE_CHECKING:
    from orchestrator.cli.output import Shape
    from schemas.enroll import TokenCreated, TokenView


@click.group()
def token() -> None:
    """Let devices join."""


@token.command()
@click.option("--class", "device_class", default="default", show_default=True, help="Their class.")
@click.option("--tag", "tags", multiple=True, help="A tag they get; may be repeated.")
@click.option("--ttl", type=Span(), default="1h", show_default=True, help="How long it is valid.")
@click.option("--uses", default=1, show_default=True, help="How many devices may use it.")
@home_option
@output_option
def create(
    device_class: str, tags: tuple[str, ...], ttl: float, uses: int, home: Path | None, form: str
) -> None:
    """Make a join token. It is shown once."""
    from orchestrator.cli.authored import build
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy
    from schemas.enroll import TokenRequest

    request = build(
        TokenRequest,
        {"device_class": "--class", "tags": "--tag", "ttl_seconds": "--ttl", "max_uses": "--uses"},
        device_class=device_class,
        tags=tags,
        ttl_seconds=round(ttl),
        max_uses=uses,
    )
    with Argosy.from_profile(home) as argosy:
        made = argosy.tokens.create(request)
        url = argosy.url
    from orchestrator.cli.output import Shape

    shape: Shape[TokenCreated] = Shape(lambda created: created.token)
    emit_one(made, form, shape, lambda created: _show(created, url))


def _show(made: TokenCreated, url: str) -> None:
    from orchestrator.cli import console

    click.echo(made.token)
    view = made.view
    devices = "1 device" if view.max_uses == 1 else f"{view.max_uses} devices"
    console.say(
        f"{view.id}: for {devices} of class {view.device_class}, until"
        f" {view.expires_at.astimezone():%Y-%m-%d %H:%M}. It is not shown again.",
        style="dim",
    )
    console.say(f"on a device: argosy-edge enroll TOKEN --server {url} --home DIR", style="dim")


@token.command()
@home_option
@output_option
def ls(home: Path | None, form: str) -> None:
    """List join tokens, without their secrets."""
    from orchestrator.cli.output import emit_list
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        tokens = list(argosy.tokens.list())
    emit_list(tokens, form, _shape(), "no tokens: make one with `argosy token create`")


def _shape() -> Shape[TokenView]:
    from orchestrator.cli import console
    from orchestrator.cli.output import Shape

    return Shape(
        lambda view: view.id,
        ("ID", lambda view: view.id),
        ("CLASS", lambda view: view.device_class),
        ("TAGS", lambda view: ",".join(view.tags) or console.NONE),
        ("USES", lambda view: f"{view.uses}/{view.max_uses}"),
        ("EXPIRES", lambda view: f"{view.expires_at.astimezone():%Y-%m-%d %H:%M}"),
        ("STATE", lambda view: console.state("REVOKED" if view.revoked else "ok")),
    )
