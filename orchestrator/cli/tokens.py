"""``argosy token``: join tokens."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from orchestrator.cli.options import Span, home_option, output_option

if TYPE_CHECKING:
    from orchestrator.cli.output import Shape
    from schemas.enroll import TokenCreated, TokenView

_NAMES = {
    "device_class": "--class",
    "tags": "--tag",
    "ttl_seconds": "--ttl",
    "max_uses": "--uses",
    "approval": "--approval",
    "keys": "--key",
    "device": "--device",
    "note": "--note",
}


@click.group()
def token() -> None:
    """Let devices join."""


@token.command()
@click.option("--class", "device_class", help="Their class.  [default: default]")
@click.option("--tag", "tags", multiple=True, help="A tag they get; may be repeated.")
@click.option("--ttl", type=Span(), default="1h", show_default=True, help="How long it is valid.")
@click.option("--uses", type=int, help="How many devices may use it.  [default: 1, or the keys]")
@click.option("--approval", is_flag=True, help="Each device must be approved before it gets in.")
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="SHA256|@FILE",
    help="Only the device with this key, as `argosy-edge key` prints it; may be repeated.",
)
@click.option("--device", metavar="ID", help="A device that was lost or reset: take its place.")
@click.option("--note", default="", help="For people.")
@click.option("--qr", is_flag=True, help="Draw the command for the device as a QR code.")
@click.option(
    "--qr-png",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write that QR code into a file.",
)
@home_option
@output_option
def create(
    *, qr: bool, qr_png: Path | None, home: Path | None, form: str, ttl: float, **given: Any
) -> None:
    """Make a join token. It is shown once.

    On stdout stands the token alone; what to run on the device is said on stderr.
    """
    from orchestrator.cli.join import one_liner, show_qr, write_qr
    from orchestrator.cli.output import Shape, emit_one
    from orchestrator.client import Argosy

    request = _request(ttl_seconds=round(ttl), **given)
    with Argosy.from_profile(home) as argosy:
        made = argosy.tokens.create(request)
        line = one_liner(made.token, made.server or argosy.url)
    shape: Shape[TokenCreated] = Shape(lambda created: created.token)
    emit_one(made, form, shape, lambda created: _show(created, line))
    if qr:
        show_qr(line)
    if qr_png is not None:
        write_qr(line, qr_png)


def _request(*, uses: int | None, keys: tuple[str, ...], **given: Any) -> Any:
    from orchestrator.cli.authored import build
    from orchestrator.cli.join import read_keys
    from schemas.enroll import TokenRequest

    # Left out, the platform takes as many uses as keys.
    limit = {} if uses is None else {"max_uses": uses}
    return build(TokenRequest, _NAMES, keys=read_keys(keys), **limit, **given)


def _show(made: TokenCreated, line: str) -> None:
    from orchestrator.cli import console

    click.echo(made.token)
    view = made.view
    if view.device is not None:
        who = f"{view.device}, whose old certificates count no more once it is used"
    else:
        devices = "1 device" if view.max_uses == 1 else f"{view.max_uses} devices"
        who = f"{devices} of class {view.device_class}"
    until = f"{view.expires_at.astimezone():%Y-%m-%d %H:%M}"
    console.say(f"{view.id}: for {who}, until {until}. It is not shown again.", style="dim")
    if view.approval:
        console.say("each must be approved: argosy device ls --state PENDING", style="dim")
    console.say("on the device:", style="dim")
    console.say(line)


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


@token.command()
@click.argument("token_id", metavar="TOKEN_ID")
@home_option
@output_option
def revoke(token_id: str, home: Path | None, form: str) -> None:
    """Let nobody else in by a token; devices that came with it stay."""
    from orchestrator.cli import console
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        view = argosy.tokens.revoke(_id_of(token_id))

    def say(view: TokenView) -> None:
        came = "nobody" if not view.uses else "1 device" if view.uses == 1 else f"{view.uses}"
        console.say(f"{view.id} lets nobody else in; {came} came with it")

    emit_one(view, form, _shape(), say)


def _id_of(text: str) -> str:
    """The id of a token, of which somebody may have pasted the whole."""
    parts = text.split(".")
    return parts[1] if len(parts) > 1 else text


def _state(view: TokenView) -> str:
    if view.revoked:
        return "REVOKED"
    if view.uses >= view.max_uses:
        return "SPENT"
    return "EXPIRED" if view.expires_at <= datetime.now(UTC) else "ok"


def _for(view: TokenView) -> str:
    """What sets a token apart, in a word or two."""
    from orchestrator.cli import console

    told = [
        view.device or "",
        f"{view.keys} keys" if view.keys > 1 else "1 key" if view.keys else "",
        "approval" if view.approval else "",
        ",".join(view.tags),
        view.note,
    ]
    return ", ".join(part for part in told if part) or console.NONE


def _shape() -> Shape[TokenView]:
    from orchestrator.cli import console
    from orchestrator.cli.output import Shape

    return Shape(
        lambda view: view.id,
        ("ID", lambda view: view.id),
        ("CLASS", lambda view: view.device_class),
        ("USES", lambda view: f"{view.uses}/{view.max_uses}"),
        ("EXPIRES", lambda view: f"{view.expires_at.astimezone():%m-%d %H:%M}"),
        ("STATE", lambda view: console.state(_state(view))),
        ("FOR", _for),
    )
