"""``MODEL@VERSION``, as people write it: with a number, an alias, or ``latest``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from orchestrator.cli.authored import NAMES, shown
from orchestrator.errors import Invalid, NotFound
from schemas.ids import Name

if TYPE_CHECKING:
    from orchestrator.client import Argosy
    from schemas.model import ModelVersionView, ModelView, Variant

LATEST = "latest"
_SHOWN = 12
_NAME = TypeAdapter[str](Name)


def resolve(argosy: Argosy, text: str) -> tuple[str, int]:
    """The model's name and the version's number.

    Args:
        argosy: the platform.
        text: ``name@3``, ``name@alias``, ``name@latest``, or ``name``, the latest too; with a colon
            in the place of the @ as well.

    Raises:
        Invalid: it does not have this form.
        NotFound: there is no such version.
    """
    name, which = split(text)
    number = _number(which)
    return (name, number) if number is not None else (name, _named(argosy.models.get(name), which))


def load(argosy: Argosy, text: str) -> ModelVersionView:
    """The version that is meant; see ``resolve``."""
    return argosy.models.version(*resolve(argosy, text))


def version_of(argosy: Argosy, name: str, which: str, option: str) -> int:
    """A version of a model as an option gives it.

    Args:
        argosy: the platform.
        name: the model's.
        which: its number or alias alone, or behind the model's name, as in ``digits@3``.
        option: that it was given by.

    Raises:
        Invalid: it is none, or of another model.
        NotFound: there is no such version.
    """
    named, at, rest = which.replace(":", "@").partition("@")
    if at and named != name and named and rest:
        detail = f"{option}: {which!r} is of another model than {name}"
        raise Invalid(detail, hint=f"a version of {name}, as in 3, champion or {name}@3")
    version = rest if at and named == name else which
    is_none = not version or "@" in version or ":" in version or "/" in version
    if is_none or _number(version) == 0:
        detail = f"{option}: {which!r} is no version of {name}"
        raise Invalid(detail, hint=f"a number or an alias, as in 3, champion or {name}@3")
    return resolve(argosy, f"{name}@{version}")[1]


def version_there(argosy: Argosy, rollout_id: str, which: str | None, option: str) -> int | None:
    """A version of the model that a rollout ships; None where none is named. See ``version_of``."""
    if which is None:
        return None
    number = _number(which)
    if number:
        return number  # whose it is need not be asked
    return version_of(argosy, argosy.rollouts.get(rollout_id).spec.model, which, option)


def split(text: str) -> tuple[str, str]:
    """The two halves; the second is ``latest`` where it is left out.

    Raises:
        Invalid: it does not have this form.
    """
    name, _, which = text.replace(":", "@").partition("@")
    if not name or "@" in which or "/" in text:
        detail = f"{text!r} is not of the form MODEL@VERSION"
        raise Invalid(detail, hint="as in digits@3, digits@champion or digits@latest")
    _check_name(name)
    return name, which or LATEST


def model_name(text: str) -> str:
    """A model's name without a version.

    Raises:
        Invalid: it is something else.
    """
    if not text or "@" in text or "/" in text:
        detail = f"{text!r} is not a model's name"
        raise Invalid(detail, hint="without a version, as in digits")
    _check_name(text)
    return text


def _check_name(name: str) -> None:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        detail = f"{shown(name)} is not a model's name"
        raise Invalid(detail, hint=f"{NAMES}; `argosy model ls` lists them") from None


def variant_of(view: ModelVersionView, wanted: str | None) -> Variant:
    """The variant of that id; None: the one that is offered first.

    Raises:
        NotFound: the version has none of that id.
    """
    if wanted is None:
        return view.manifest.variants[0]
    found = view.manifest.variant(wanted)
    if found is None:
        known = ", ".join(variant.id for variant in view.manifest.variants[:_SHOWN])
        detail = f"{view.model}@{view.version} has no variant {wanted!r}"
        raise NotFound(detail, hint=f"it has {known}")
    return found


def _number(which: str) -> int | None:
    is_one = which.isascii() and which.isdigit() and len(which) <= 9  # noqa: PLR2004 - an int32
    return int(which) if is_one else None


def _named(model: ModelView, which: str) -> int:
    if which in model.aliases:
        return model.aliases[which]
    if which == LATEST and model.versions:
        return max(model.versions)
    known = [*(str(v) for v in model.versions), *model.aliases, LATEST]
    detail = f"{model.name} has no version {which!r}"
    hint = f"it has {', '.join(known[:_SHOWN])}" if model.versions else None
    raise NotFound(detail, hint=hint)
