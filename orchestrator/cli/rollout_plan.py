"""``argosy rollout plan``: a draft of a rollout, frozen and shown; nothing is sent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from orchestrator.cli.options import home_option, output_option
from orchestrator.cli.plan_options import plan_options
from orchestrator.cli.rollout_shape import rollout_shape

if TYPE_CHECKING:
    from orchestrator.cli.yamlfile import Document
    from orchestrator.client import Argosy
    from schemas.rollout_view import RolloutView


@click.command()
@click.argument("ref", metavar="[MODEL[@VERSION]]", required=False)
@plan_options
@home_option
@output_option
def plan(*, ref: str | None, home: Path | None, form: str, **options: Any) -> int:
    """Plan a rollout of MODEL@VERSION: freeze who is in which wave, and show what it would cost.

    VERSION is a number or an alias, as in digits@3 or digits@champion; the newest without one.
    `argosy rollout start` then runs exactly this plan; `argosy rollout abort` discards it, as
    seven days do.
    """
    from orchestrator.cli import console
    from orchestrator.cli.output import emit_one
    from orchestrator.cli.rollout_plan_text import print_plan
    from orchestrator.client import Argosy

    with Argosy.from_profile(home) as argosy:
        view = planned(argosy, ref, options)
    emit_one(view, form, rollout_shape(), print_plan)
    if form == "table":
        console.say(f"nothing runs yet: `argosy rollout start {view.id}` runs it", style="dim")
        console.say(f"and `argosy rollout abort {view.id}` discards it", style="dim")
    return 0


def planned(argosy: Argosy, ref: str | None, options: Mapping[str, Any]) -> RolloutView:
    """Make the draft that a reference, a file and options ask for.

    Raises:
        Invalid, Located: they do not make a plan; the message names the option or the line.
        NotFound: there is no such version.
    """
    from orchestrator.cli.plan import rollout_spec
    from orchestrator.cli.refs import resolve, version_of
    from orchestrator.cli.yamlfile import load

    path = options.get("plan_file")
    file = load(path) if path is not None else None
    model, version = resolve(argosy, ref or _named(file))
    _check_same(model, file)
    back, where = options.get("rollback_to"), "--rollback-to"
    if back is None and file is not None:
        key = "rollback-to" if "rollback-to" in file.value else "rollback_to"
        said, where = file.value.get(key), f"{file.where((key,))}: {key}"
        back = said if isinstance(said, str) else None  # a number stays the file's
    if isinstance(back, str):
        back = version_of(argosy, model, back, where)
    spec = rollout_spec(model, version, {**options, "rollback_to": back}, file)
    return argosy.rollouts.create(spec)


def _check_same(model: str, file: Document | None) -> None:
    """See that the command line names the model that the file is about."""
    from orchestrator.errors import Invalid

    named = None if file is None else file.value.get("model")
    if file is None or not isinstance(named, str) or named.replace(":", "@").split("@")[0] == model:
        return
    detail = f"{file.where(('model',))}: model: it is {named}, and the command line names {model}"
    raise Invalid(detail, hint="name the same one, or leave the key out")


def _named(file: Document | None) -> str:
    """What a file ships: `model: digits` with `version: 3`, or `model: digits@champion`."""
    from orchestrator.errors import Invalid

    if file is None:
        detail = "no model is named"
        raise Invalid(detail, hint="as in digits@3, or by a file: -f plan.yaml")
    model, version = file.value.get("model"), file.value.get("version")
    if not isinstance(model, str):
        detail = f"{file.where(('model',))}: the key 'model' is missing, and no MODEL is given"
        raise Invalid(detail, hint="as in `model: digits` and `version: 3`")
    return model if version is None or "@" in model else f"{model}@{version}"
