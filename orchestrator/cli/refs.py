"""``MODEL@VERSION``, as people write it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import Invalid, NotFound

if TYPE_CHECKING:
    from orchestrator.client import Argosy

LATEST = "latest"


def resolve(argosy: Argosy, text: str) -> tuple[str, int]:
    """The model's name and the version's number.

    Args:
        argosy: the platform.
        text: ``name@3``, ``name@alias``, ``name@latest``, or ``name``, the latest too.

    Raises:
        Invalid: it does not have this form.
        NotFound: there is no such version.
    """
    name, _, which = text.partition("@")
    which = which or LATEST
    if not name or "@" in which or "/" in text:
        detail = f"{text!r} is not of the form MODEL@VERSION"
        raise Invalid(detail, hint="as in digits@3, digits@champion or digits@latest")
    if which.isascii() and which.isdigit() and 0 < len(which) <= 9:  # noqa: PLR2004 - an int32
        return name, int(which)
    model = argosy.models.get(name)
    if which in model.aliases:
        return name, model.aliases[which]
    if which == LATEST and model.versions:
        return name, max(model.versions)
    known = [*(str(v) for v in model.versions), *model.aliases, LATEST]
    detail = f"{name} has no version {which!r}"
    raise NotFound(detail, hint=f"it has {', '.join(known[:12])}" if model.versions else None)
