"""``argosy login``, ``logout``, ``whoami``: which platform, and who one is there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import home_option, output_option

if TYPE_CHECKING:
    from schemas.access import Whoami

MAX_TOKEN = 200


@click.command()
@click.argument("url")
@click.option(
    "--token",
    metavar="-",
    help="The API token; - reads it from stdin. Left out, it is asked for.",
)
@click.option(
    "--ca",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with the platform's certificate authority (PEM).",
)
@click.option("--ca-sha256", metavar="HEX", help="SHA-256 of that authority, to trust it by.")
@click.option(
    "--profile", default="default", show_default=True, metavar="NAME", help="What to call it."
)
@output_option
def login(
    url: str, token: str | None, ca: Path | None, ca_sha256: str | None, profile: str, form: str
) -> None:
    """Sign in to a platform and keep it as a profile, which is then in use."""
    from orchestrator.cli import console
    from orchestrator.client import Argosy
    from orchestrator.client.profile import checked_url
    from orchestrator.client.profiles import Profiles, check_name

    check_name(profile)
    url = checked_url(url)
    # Whom to trust comes first: a token goes to nobody before that.
    authority = _authority(url, ca, ca_sha256)
    secret = _token(token)
    with Argosy(url, secret, authority) as argosy:
        found = argosy.whoami()
    profiles = Profiles.of()
    profiles.save(profile, url, secret, authority)
    _show(found, form)
    console.say(f"kept as profile {profile} in {profiles.folder}, and in use", style="dim")


@click.command()
@click.argument("name", required=False)
def logout(name: str | None) -> None:
    """Forget a profile: that which is in use, or NAME. The token itself stays valid."""
    from orchestrator.cli import console
    from orchestrator.client.profiles import Profiles
    from orchestrator.errors import NotFound

    profiles = Profiles.of()
    chosen = name or profiles.in_use()
    if chosen is None:
        msg = "no profile is in use"
        raise NotFound(msg, hint="`argosy profile ls` shows those there are")
    profiles.remove(chosen)
    console.say(f"forgot profile {chosen}; to end its token: argosy api-token revoke ID")


@click.command()
@home_option
@output_option
def whoami(home: Path | None, form: str) -> None:
    """Show whose token is used, where, and what it may do."""
    from orchestrator.cli import console
    from orchestrator.client import Argosy
    from orchestrator.client.profile import Profile

    profile = Profile.load(home)
    with Argosy(profile.url, profile.token, profile.ca) as argosy:
        found = argosy.whoami()
    _show(found, form)
    if form == "table":
        console.say(f"at {profile.url}, by {profile.source}", style="dim")


def _show(found: Whoami, form: str) -> None:
    from orchestrator.cli.output import Shape, emit_one

    shape: Shape[Whoami] = Shape(lambda one: one.id)
    emit_one(found, form, shape, _facts)


def _facts(found: Whoami) -> None:
    from orchestrator.cli.output import print_facts

    until = found.expires_at
    print_facts(
        [
            ("token", found.id),
            ("name", found.name),
            ("role", found.role),
            ("rights", ", ".join(found.scopes) or "those of a program"),
            ("valid until", f"{until.astimezone():%Y-%m-%d %H:%M}" if until else "revoked"),
        ]
    )


def _authority(url: str, ca: Path | None, ca_sha256: str | None) -> str | None:
    """The authorities to trust, as PEM text; None where the system knows them.

    Raises:
        Invalid, ProfileError: nobody vouches for the platform.
    """
    from orchestrator.client import login as contact
    from orchestrator.errors import Invalid

    if ca is not None and ca_sha256 is not None:
        msg = "--ca and --ca-sha256 say the same twice"
        raise Invalid(msg, hint="say one of them")
    if url.startswith("http://"):
        return None
    if ca is not None:
        return contact.read_ca(ca)
    if ca_sha256 is None and contact.is_known(url):
        return None
    return _pinned(url, contact.read_digest(ca_sha256) if ca_sha256 else None)


def _pinned(url: str, digest: str | None) -> str:
    from orchestrator.cli import console
    from orchestrator.cli.asking import is_anyone_there
    from orchestrator.client import login as contact
    from orchestrator.client.errors import ProfileError

    roots = contact.offered_roots(url)
    if digest is not None:
        for root in roots:
            if root.sha256 == digest:
                return contact.vouched_roots(url, root)
        msg = f"{url} has the authority {roots[0].sha256}, not {digest}"
        raise ProfileError(msg, hint="do not go on: something may stand between you and it")
    root = contact.vouching_root(url, roots)
    if not is_anyone_there():
        msg = f"{url} has a certificate authority of its own, which nobody vouches for"
        raise ProfileError(msg, hint="say --ca-sha256 HEX or --ca FILE, as `argosy up` shows it")
    console.say(f"{url} has a certificate authority of its own, with the SHA-256")
    console.say(f"  {grouped(root.sha256)}", style="bold")
    console.say("`argosy up` shows it on that machine; compare them.")
    click.confirm("Is it the same?", abort=True, err=True)
    return contact.vouched_roots(url, root)


def grouped(digest: str) -> str:
    """A SHA-256 for the eye: pairs of digits with colons, as openssl prints it."""
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2)).upper()


def _token(given: str | None) -> str:
    from orchestrator.cli import console
    from orchestrator.cli.asking import is_anyone_there
    from orchestrator.errors import Invalid

    if given is None and is_anyone_there():
        given = click.prompt("API token", hide_input=True, err=True)
    elif given in {None, "-"}:
        given = sys.stdin.readline(MAX_TOKEN + 2)
    else:
        said = "others on this machine can see a token on the command line; use --token -"
        console.say(said, style="yellow")
    token = (given or "").strip()
    if not token or len(token) > MAX_TOKEN or not token.isascii() or not token.isprintable():
        msg = "that is no API token"
        raise Invalid(msg, hint="an admin makes one with: argosy api-token create NAME --role …")
    return token
