"""``argosy rollout start``: a draft as it was planned, or a version, planned and started."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from orchestrator.cli.options import home_option, output_option, timeout_option
from orchestrator.cli.plan_options import plan_options
from orchestrator.cli.rollout_plan import planned
from orchestrator.cli.rollout_shape import acts_on, rollout_shape
from orchestrator.cli.rollout_shape import follow as watch_it

if TYPE_CHECKING:
    from schemas.rollout_view import RolloutView

_DRAFT = "rol_"


@click.command()
@click.argument("ref", metavar="[MODEL[@VERSION]|ROLLOUT]", required=False)
@click.option("-w", "--watch", "follow", is_flag=True, help="Watch it until it settles.")
@click.option("--reason", default="", help="Why; it is kept, and shown to who approves.")
@plan_options
@timeout_option
@home_option
@output_option
def start(
    *,
    ref: str | None,
    follow: bool,
    reason: str,
    timeout: float | None,
    home: Path | None,
    form: str,
    **options: Any,
) -> int:
    """Start a rollout of MODEL@VERSION, or a ROLLOUT exactly as `argosy rollout plan` froze it.

    VERSION is a number or an alias, as in digits@3 or digits@champion; the newest without one.
    Who is in which wave does not change any more. Which variant a device gets is decided when it
    is offered the version, as what is measured may be more by then.
    """
    from orchestrator.cli.authored import build
    from orchestrator.cli.failures import may_be_done
    from orchestrator.cli.output import emit_one
    from orchestrator.client import Argosy
    from orchestrator.client.errors import InterruptedAnswerError
    from schemas.rollout_view import OperateRequest

    said = build(OperateRequest, {"reason": "--reason"}, reason=reason)
    with Argosy.from_profile(home) as argosy:
        if ref is not None and ref.startswith(_DRAFT):
            _check_alone(options)
            drafted = ref
        else:
            with may_be_done("it may have been planned; nothing was started", "argosy rollout ls"):
                draft = planned(argosy, ref, options)
            drafted = draft.id
            if form == "table":
                _say_what(draft, ref)
        try:
            with acts_on(drafted):
                view = argosy.rollouts.start(drafted, said.reason)
        except InterruptedAnswerError as error:
            error.hint = f"it is planned, and may have started: `argosy rollout start {drafted}`"
            raise
        if follow:
            return watch_it(argosy, view.id, timeout, form)
    emit_one(view, form, rollout_shape(), lambda v: click.echo(v.id))
    if form == "table":
        _say(view)
    return 0


def _check_alone(options: dict[str, Any]) -> None:
    """See that nobody believes to change a plan that is frozen."""
    from orchestrator.cli.plan import option_name
    from orchestrator.errors import Invalid

    given = next((n for n, value in options.items() if value not in (None, False, ())), None)
    if given is not None:
        detail = f"{option_name(given)}: the plan of a draft is frozen"
        raise Invalid(detail, hint="plan anew by the model: argosy rollout plan MODEL@VERSION …")


def _say_what(draft: RolloutView, ref: str | None) -> None:
    """Which version it is, where that was not said by its number."""
    from orchestrator.cli import console
    from orchestrator.cli.refs import LATEST, split

    named = f"{draft.spec.model}@{draft.spec.version}"
    which = "" if ref is None else split(ref)[1]
    if which != str(draft.spec.version):
        said = {"": "as the plan says", LATEST: "the newest version"}
        console.say(f"{named}, {said.get(which, f'which is {which}')}", style="dim")


def _say(view: RolloutView) -> None:
    from orchestrator.cli import console
    from schemas.rollout import RolloutState

    if view.state is RolloutState.AWAITING_APPROVAL:
        by = f"another releaser or admin agrees by `argosy rollout approve {view.id}`"
        console.say(f"it waits for approval: {by}", style="yellow")
        return
    console.say(f"started; watch it with `argosy rollout watch {view.id}`", style="dim")
