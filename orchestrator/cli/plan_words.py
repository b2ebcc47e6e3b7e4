"""A plan file's keys that are named as the options are: ``class: camera``, ``soak: 10m``."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import click

from orchestrator.cli.plan_options import plan_options
from orchestrator.cli.yamlfile import Document
from orchestrator.errors import Invalid
from schemas.rollout import RolloutSpec

_SAME = frozenset({"where", "fleet", "exclude", "dynamic", "priority", "approval", "variant"})
"""Options that say word for word what the key of that name says."""

_EITHER: Mapping[str, tuple[type, ...]] = {
    "waves": (list,),
    "mode": (dict,),
    "shadow": (dict,),
    "rollback_to": (int,),
}
"""Keys that are an option's name too, and what they hold where they are the API's."""


@dataclass(frozen=True, slots=True)
class Words:
    """What a file says as options would.

    options: by parameter, as a command gets them. told: where each option stands in the file.
    """

    options: dict[str, Any] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)

    def placed(self, error: Invalid) -> Invalid:
        """A fault of an option as one of the file's line."""
        option, _, rest = error.detail.partition(": ")
        return Invalid(f"{self.told.get(option, option)}: {rest}", hint=error.hint)


@cache
def options() -> Mapping[str, click.Option]:
    """The options of a plan by their name in a file: ``per_minute`` of ``--per-minute``."""

    @plan_options
    def holder() -> None:
        """Take the options."""

    made: list[click.Option] = getattr(holder, "__click_params__", [])
    return {_key(max(one.opts, key=len)): one for one in made if one.name != "plan_file"}


def split(file: Document) -> tuple[dict[str, Any], Words]:
    """Part a file into keys of the API and keys that are named as options.

    Raises:
        Invalid: an option's value has not its form, or a key is there in both spellings; the
            message names the line.
    """
    base: dict[str, Any] = {}
    seen: dict[str, str] = {}
    words = Words()
    for written, value in file.value.items():
        key = _key(written)
        option = options().get(key)
        where = f"{file.where((written,))}: {written}"
        if option is None or key in _SAME or isinstance(value, _EITHER.get(key, ())):
            # A key that is unknown stays as it is written, for the message.
            name = key if key in RolloutSpec.model_fields else written
            base[name] = deepcopy(value)
        else:
            name = str(option.name)
            words.options[name] = _value(option, value, where)
            words.told[f"--{key.replace('_', '-')}"] = where
        if name in seen:
            detail = f"{where}: {seen[name]!r} says the same"
            raise Invalid(detail, hint="leave one of them out")
        seen[name] = written
    return base, words


def _key(written: str) -> str:
    return written.removeprefix("--").replace("-", "_")


def _value(option: click.Option, value: Any, where: str) -> Any:
    if value is None:
        return None
    if option.multiple:
        items = value if isinstance(value, list) else [value]
        return tuple(_one(option, item, where) for item in items)
    return _one(option, value, where)


def _one(option: click.Option, value: Any, where: str) -> Any:
    if isinstance(value, dict | list | bool):
        detail = f"{where}: must be one value, as behind {max(option.opts, key=len)}"
        raise Invalid(detail, hint="`argosy rollout plan --help` says which")
    is_choice = isinstance(option.type, click.Choice)
    given = str(value).replace("_", "-") if is_choice else value
    try:
        return option.type.convert(given, None, None)
    except click.BadParameter as error:
        detail = f"{where}: {error.message.removesuffix('.')}"
        raise Invalid(detail) from None
