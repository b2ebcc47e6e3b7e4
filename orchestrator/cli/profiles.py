"""``argosy profile``: the platforms that one signed in to."""

from __future__ import annotations

import rich_click as click

from orchestrator.cli.options import output_option


@click.group()
def profile() -> None:
    """Choose between platforms."""


@profile.command()
@output_option
def ls(form: str) -> None:
    """List profiles; the one in use has a star."""
    from pydantic import BaseModel

    from orchestrator.cli.output import Shape, emit_list
    from orchestrator.client.errors import ProfileError
    from orchestrator.client.profile import read
    from orchestrator.client.profiles import Profiles

    class Kept(BaseModel):
        name: str
        url: str
        in_use: bool

    profiles = Profiles.of()
    used, kept = profiles.in_use(), []
    for name in profiles.names():
        try:
            url = read(profiles.path(name)).url
        except ProfileError as error:
            url = error.detail
        kept.append(Kept(name=name, url=url, in_use=name == used))
    shape: Shape[Kept] = Shape(
        lambda one: one.name,
        ("", lambda one: "*" if one.in_use else ""),
        ("NAME", lambda one: one.name),
        ("PLATFORM", lambda one: one.url),
    )
    emit_list(kept, form, shape, "no profiles: sign in with `argosy login URL`")


@profile.command()
@click.argument("name")
def use(name: str) -> None:
    """Use a profile from now on."""
    from orchestrator.cli import console
    from orchestrator.client.profile import read
    from orchestrator.client.profiles import Profiles

    profiles = Profiles.of()
    found = read(profiles.path(name))
    profiles.use(name)
    console.say(f"profile {name}: {found.url}", style="dim")
