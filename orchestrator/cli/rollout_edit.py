"""``argosy rollout edit``: another pace, other windows, gates or another priority."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from orchestrator.cli.options import home_option, output_option
from orchestrator.cli.plan_options import edit_options, frozen_options

_EDITED = ("pace", "gates", "windows", "priority", "on_failure")


class _EditCommand(click.RichCommand):
    """Says of the options that only a plan takes what to do instead."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        from orchestrator.errors import Invalid

        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name not in frozen_options():
                raise
            what = "who is in which wave, and what devices do, is frozen with the plan"
            instead = "`argosy rollout abort` it, and plan anew: `argosy rollout plan`"
            msg = f"{error.option_name}: {what}"
            raise Invalid(msg, hint=instead) from None


@click.command(cls=_EditCommand)
@click.argument("rollout_id", metavar="ROLLOUT")
@edit_options
@home_option
@output_option
def edit(rollout_id: str, home: Path | None, form: str, **options: Any) -> None:
    """Change a rollout that is not over; what is not named stays.

    A --gate is added to those that are there, or replaces that of its metric; `--gate none` leaves
    all of them out but those beside it. So one is dropped by saying the others anew behind it. Who
    is in which wave is frozen.
    """
    from orchestrator.cli import console
    from orchestrator.cli.output import emit_one
    from orchestrator.cli.plan import edited_spec
    from orchestrator.cli.rollout_acts import say_notes
    from orchestrator.cli.rollout_gates import changes
    from orchestrator.cli.rollout_shape import rollout_shape
    from orchestrator.client import Argosy
    from orchestrator.errors import Invalid
    from schemas.rollout_view import RolloutEdit

    if all(value is None or value is False or value == () for value in options.values()):
        detail = "nothing is to be changed"
        raise Invalid(detail, hint="as in: argosy rollout edit ROLLOUT --per-minute 50")
    with Argosy.from_profile(home) as argosy:
        seen = argosy.rollouts.get(rollout_id)
        wanted = edited_spec(seen.spec, options)
        named = {name: getattr(wanted, name) for name in _EDITED}
        differs = {name: one for name, one in named.items() if one != getattr(seen.spec, name)}
        if seen.unreadable and options.get("no_windows"):
            differs["windows"] = ()  # what is there may be what cannot be read
        view = seen
        if differs:
            view = argosy.rollouts.edit(rollout_id, RolloutEdit(**differs), seen.revision)
    emit_one(view, form, rollout_shape(), lambda v: console.say(v.id, console.state(v.state)))
    if form == "table":
        said = list(changes(seen.spec, view.spec)) or [
            f"changed: {', '.join(differs)}" if differs else "it is so already"
        ]
        for line in said:
            console.say(line)
        console.say(f"revision {view.revision}", style="dim")
    say_notes(view, form)
