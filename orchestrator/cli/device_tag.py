"""``argosy device tag``: tags of some devices, or of all whom a selector matches."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from orchestrator.cli.options import FORMS, home_option

if TYPE_CHECKING:
    from orchestrator.cli.output import Shape
    from orchestrator.cli.selecting import TagWords
    from orchestrator.client import Argosy
    from schemas.device import DeviceView
    from schemas.fleet import TagsChanged


class _TagCommand(click.RichCommand):
    """Reads ``-old`` as a tag; ``-o`` alone, with a form behind it, is ``--output``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        pairs = itertools.zip_longest(args, args[1:], fillvalue="")
        read = ["--output" if one == "-o" and after in FORMS else one for one, after in pairs]
        return super().parse_args(ctx, read)


# No option of one letter here: `-old` takes the tag "old" away.
@click.command(
    cls=_TagCommand,
    context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
)
@click.argument(
    "words", metavar="[DEVICE]... [+TAG]... [-TAG]...", nargs=-1, type=click.UNPROCESSED
)
@click.option("--where", metavar="SELECTOR", help="All devices that it matches, as one change.")
@click.option(
    "--dry-run", is_flag=True, help="Count what --where would change, and change nothing."
)
@click.option("--at-most", type=click.IntRange(min=0), metavar="N", help="Refuse to change more.")
@click.option("--yes", is_flag=True, help="Do not ask before --where changes devices.")
@home_option
@click.option(
    "--output",
    "form",
    type=click.Choice(FORMS),
    default="table",
    show_default=True,
    help="Form of the result on stdout; -o too.",
)
def tag(
    *,
    words: tuple[str, ...],
    where: str | None,
    dry_run: bool,
    at_most: int | None,
    yes: bool,
    home: Path | None,
    form: str,
) -> None:
    """Give devices tags and take tags away; the tags that are not named stay.

    By name, as in `argosy device tag dev_… +lab -old`, or all that a selector matches, as in
    `argosy device tag --where 'class = cam' +lab`: then all of them change, or none. Plans that are
    frozen stay as they are; dynamic rollouts and fleets follow. Ids may come by a pipe too:
    `argosy device ls -o name | argosy device tag - +lab`.
    """
    from orchestrator.cli.output import emit_one
    from orchestrator.cli.selecting import STDIN, narrowed, tag_words
    from orchestrator.client import Argosy
    from orchestrator.errors import Invalid

    change = tag_words(words, where)
    selector, piped = narrowed(where, None, ()), STDIN in words
    if selector is None and not piped and (dry_run or at_most is not None):
        msg = f"{'--dry-run' if dry_run else '--at-most'} is for --where, and ids from stdin"
        raise Invalid(msg, hint="devices that are named are changed one by one")
    with Argosy.from_profile(home) as argosy:
        if selector is None and not piped:
            _named(argosy, change, form)
            return
        if selector is None:
            emit_one(
                _piped(argosy, change, dry_run=dry_run, at_most=at_most), form, _shape(), _show
            )
            return
        done = _many(argosy, selector, change, dry_run=dry_run, at_most=at_most, yes=yes)
    emit_one(done, form, _shape(), _show)


def _named(argosy: Argosy, change: TagWords, form: str) -> None:
    from orchestrator.cli.device_show import device_shape
    from orchestrator.cli.output import emit_list

    done: list[DeviceView] = []
    try:
        for one in change.devices:
            done.append(argosy.devices.retag(one, change.add, change.remove))  # noqa: PERF401 - kept when a later one fails
    finally:
        if done:
            emit_list(done, form, device_shape(), "")


def _piped(argosy: Argosy, change: TagWords, *, dry_run: bool, at_most: int | None) -> TagsChanged:
    """Change those whose ids stdin has, in portions; nothing before all of them are known.

    Raises:
        NotFound: there are no such devices.
        Conflict: more would change than was agreed to.
    """
    from orchestrator.cli.selecting import portions
    from orchestrator.errors import Conflict, NotFound
    from schemas.fleet import TagsChanged

    devices = tuple(dict.fromkeys(change.devices))
    selectors = list(portions(devices))
    retag = argosy.devices.retag_all
    seen = [retag(one, change.add, change.remove, dry_run=True) for one in selectors]
    found, changes = sum(one.matched for one in seen), sum(one.changed for one in seen)
    if found < len(devices):
        msg = f"stdin: {len(devices) - found} of {len(devices)} ids are of no device here"
        raise NotFound(msg, hint="nothing was changed; `argosy device ls` lists those there are")
    if at_most is not None and changes > at_most:
        msg = f"{changes} would change, more than the {at_most} of --at-most"
        raise Conflict(msg, hint="nothing was changed")
    if not dry_run:
        done = [retag(one, change.add, change.remove) for one in selectors]
        changes = sum(one.changed for one in done)
    return TagsChanged(matched=found, changed=changes, dry_run=dry_run)


def _many(
    argosy: Argosy,
    selector: str,
    change: TagWords,
    *,
    dry_run: bool,
    at_most: int | None,
    yes: bool,
) -> TagsChanged:
    from orchestrator.cli.asking import confirm

    if dry_run or not yes:
        found = argosy.devices.retag_all(
            selector, change.add, change.remove, dry_run=True, at_most=at_most
        )
        if dry_run or not found.changed:
            return found
        confirm(f"{change} for {found.changed} of {found.matched} that match?", yes=yes)
        at_most = found.changed  # it was agreed to these: who comes to match meanwhile is not in it
    return argosy.devices.retag_all(selector, change.add, change.remove, at_most=at_most)


def _shape() -> Shape[TagsChanged]:
    from orchestrator.cli.output import Shape

    return Shape(
        lambda view: str(view.changed),
        ("MATCHED", lambda view: str(view.matched)),
        ("CHANGED", lambda view: str(view.changed)),
    )


def _show(view: TagsChanged) -> None:
    from orchestrator.cli import console

    devices = "1 device matches" if view.matched == 1 else f"{view.matched} devices match"
    verb = "would change" if view.dry_run and view.changed else "changed"
    console.out().print(f"{devices}, {view.changed} {verb}")
