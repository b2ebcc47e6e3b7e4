"""What operators do to a rollout: ``argosy rollout pause|promote|rollback`` and the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from orchestrator.cli.options import home_option, output_option, timeout_option

if TYPE_CHECKING:
    from orchestrator.client import Argosy
    from schemas.rollout_view import RolloutView

_rollout_argument = click.argument("rollout_id", metavar="ROLLOUT")
_reason_option = click.option("--reason", default="", help="Why; it is kept.")


def _options(act: Callable[..., Any]) -> Callable[..., Any]:
    """What every act takes."""
    for option in (output_option, home_option, _reason_option, _rollout_argument):
        act = option(act)
    return act


def _do(
    rollout_id: str,
    home: Path | None,
    form: str,
    reason: str,
    act: Callable[[Argosy, str], RolloutView],
    follow_up: Callable[[RolloutView], str] | None = None,
) -> None:
    from orchestrator.cli import console
    from orchestrator.cli.authored import build
    from orchestrator.cli.output import emit_one
    from orchestrator.cli.rollout_shape import acts_on, rollout_shape
    from orchestrator.client import Argosy
    from schemas.rollout_view import OperateRequest

    said = build(OperateRequest, {"reason": "--reason"}, reason=reason)
    with Argosy.from_profile(home) as argosy, acts_on(rollout_id):
        view = act(argosy, said.reason)
    emit_one(view, form, rollout_shape(), lambda v: console.say(v.id, console.state(v.state)))
    say_notes(view, form)
    if form == "table" and follow_up is not None:
        console.say(follow_up(view), style="dim")


def say_notes(view: RolloutView, form: str) -> None:
    """What an act or an edit did not do, or leaves as it was."""
    from orchestrator.cli import console

    for note in view.notes if form == "table" else ():
        console.say(f"note: {console.clean(note)}", style="yellow")


@click.command()
@_options
def approve(rollout_id: str, reason: str, home: Path | None, form: str) -> None:
    """Agree to a rollout that another person started."""
    _do(
        rollout_id, home, form, reason, lambda argosy, why: argosy.rollouts.approve(rollout_id, why)
    )


@click.command()
@_options
def pause(rollout_id: str, reason: str, home: Path | None, form: str) -> None:
    """Offer the version to no further device for now."""
    _do(rollout_id, home, form, reason, lambda argosy, why: argosy.rollouts.pause(rollout_id, why))


@click.command()
@_options
def resume(rollout_id: str, reason: str, home: Path | None, form: str) -> None:
    """Go on with a paused rollout."""
    _do(rollout_id, home, form, reason, lambda argosy, why: argosy.rollouts.resume(rollout_id, why))


@click.command()
@click.option("--full", is_flag=True, help="Every wave that is left, not this one alone.")
@click.option(
    "--wave",
    type=click.IntRange(min=1, max=1001),
    metavar="N",
    help="The wave that is meant, so that a repeat lets no other pass  [the one that runs].",
)
@_options
def promote(
    *,
    rollout_id: str,
    full: bool,
    wave: int | None,
    reason: str,
    home: Path | None,
    form: str,
) -> None:
    """Let its wave pass by hand, without soak and gates; one that a verdict paused goes on.

    It passes once its devices are through. If the answer was lost, name the wave when you say it
    again: by then the next one may run.
    """
    from orchestrator.errors import Invalid

    if full and wave is not None:
        detail = "--wave: --full means every wave that is left"
        raise Invalid(detail, hint="say one of the two")
    index = None if wave is None else wave - 1
    _do(
        rollout_id,
        home,
        form,
        reason,
        lambda argosy, why: argosy.rollouts.promote(rollout_id, wave=index, full=full, reason=why),
    )


@click.command()
@_options
def activate(rollout_id: str, reason: str, home: Path | None, form: str) -> None:
    """Have devices go on that wait with the version on their disk."""
    _do(
        rollout_id,
        home,
        form,
        reason,
        lambda argosy, why: argosy.rollouts.activate(rollout_id, why),
    )


@click.command()
@_options
def finish(rollout_id: str, reason: str, home: Path | None, form: str) -> None:
    """Let no more devices join a dynamic rollout; it ends when its waves have passed."""
    _do(
        rollout_id,
        home,
        form,
        reason,
        lambda argosy, why: argosy.rollouts.finish(rollout_id, why),
        _left,
    )


def _left(view: RolloutView) -> str:
    """What a rollout that nobody joins any more waits for yet."""
    from orchestrator.cli.rollout_ends import absent_text
    from schemas.rollout import RolloutState, WaveState

    if view.state is not RolloutState.RUNNING:
        return "nobody joins it any more"
    open_ = sum(wave.size > 0 and wave.state is not WaveState.PASSED for wave in view.waves)
    waves = f"ends when its {'last wave has' if open_ == 1 else f'{open_} waves have'} passed"
    said = absent_text(view) or (waves if open_ else "ends now, as all of its waves have passed")
    return f"nobody joins it any more; it {said}"


@click.command()
@_options
def abort(rollout_id: str, reason: str, home: Path | None, form: str) -> None:
    """End a rollout here; devices keep what they serve."""
    _do(rollout_id, home, form, reason, lambda argosy, why: argosy.rollouts.abort(rollout_id, why))


@click.command()
@click.option(
    "--to", metavar="VERSION", help="The version for all, as in 3  [default: each its own before]."
)
@click.option("-w", "--watch", "watches", is_flag=True, help="Watch until devices are back.")
@timeout_option
@_options
def rollback(
    *,
    rollout_id: str,
    to: str | None,
    watches: bool,
    timeout: float | None,
    reason: str,
    home: Path | None,
    form: str,
) -> int:
    """End a rollout, and give its devices what they served before.

    What is under way is given up; a device that has switched gets its earlier version by a
    rollout of its own, which stands with this one. Never a newer version than the one taken back.
    VERSION is a number or an alias, also behind the model's name: 3, champion, digits@3.
    """
    from orchestrator.cli.refs import version_there

    if watches:
        return _watch_back(rollout_id, to, reason, home, timeout, form)

    def act(argosy: Argosy, why: str) -> RolloutView:
        goal = version_there(argosy, rollout_id, to, "--to")
        return argosy.rollouts.rollback(rollout_id, to=goal, reason=why)

    _do(
        rollout_id,
        home,
        form,
        reason,
        act,
        lambda view: f"watch it with `argosy rollout watch {view.id}`",
    )
    return 0


def _watch_back(
    rollout_id: str,
    to: str | None,
    reason: str,
    home: Path | None,
    timeout: float | None,
    form: str,
) -> int:
    """Roll back, and wait; the exit code says whether nobody serves the version any more."""
    from orchestrator.cli.authored import build
    from orchestrator.cli.refs import version_there
    from orchestrator.cli.rollout_shape import acts_on, follow
    from orchestrator.client import Argosy
    from schemas.errors import Exit
    from schemas.rollout import RolloutState
    from schemas.rollout_view import OperateRequest

    said = build(OperateRequest, {"reason": "--reason"}, reason=reason)
    with Argosy.from_profile(home) as argosy:
        goal = version_there(argosy, rollout_id, to, "--to")
        with acts_on(rollout_id):
            argosy.rollouts.rollback(rollout_id, to=goal, reason=said.reason)
        code = follow(argosy, rollout_id, timeout, form, back=True)
        view = argosy.rollouts.get(rollout_id)
    if view.state is not RolloutState.ROLLED_BACK:
        return code
    return Exit.GATE_FAILED if view.left else Exit.OK


ACTS = (approve, pause, resume, promote, activate, finish, abort, rollback)
"""Commands, in the order of a rollout's life."""
