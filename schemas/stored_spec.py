"""Plans of rollouts as they are stored, read also where this version refuses a part of them.

A plan outlives the version that took it: a limit may have become stricter since, a key be of a
newer server, a time zone be gone from the machine. Such a plan is still shown, and nothing of what
is stored is lost: what cannot be read is named, and stands as a new plan has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from schemas.rollout import RolloutSpec

_MOST = 5
"""Faults that are named."""
_WORDS = 200
"""Characters of each."""


class MendedSpec(RolloutSpec):
    """A stored plan with parts that cannot be read. Never to be acted on, nor written back."""

    _stored: Any = PrivateAttr(default=None)
    _faults: tuple[str, ...] = PrivateAttr(default=())

    def noting(self, stored: Any, faults: tuple[str, ...]) -> Self:
        """This plan, once it knows what it stands for."""
        self._stored, self._faults = stored, faults
        return self

    @property
    def stored(self) -> Any:
        """What is stored, as it is."""
        return self._stored

    @property
    def faults(self) -> tuple[str, ...]:
        """What of it cannot be read, and why."""
        return self._faults


def faults_of(spec: RolloutSpec) -> tuple[str, ...]:
    """What of a plan cannot be read; nothing as a rule."""
    return spec.faults if isinstance(spec, MendedSpec) else ()


def _read(value: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> RolloutSpec:
    try:
        return read(value)  # type: ignore[no-any-return]  # it is the validator of a RolloutSpec
    except ValidationError as error:
        return _mended(value, error, info.data or {})


def _mended(value: Any, error: ValidationError, known: Mapping[str, Any]) -> RolloutSpec:
    """The plan without the parts that are refused.

    Args:
        value: what is stored.
        error: what is wrong with it.
        known: what the record says besides of model and version.
    """
    parts = dict(value) if isinstance(value, Mapping) else {}
    for one in error.errors():
        parts.pop(str(one["loc"][0]) if one["loc"] else "", None)
    parts |= {name: known[name] for name in ("model", "version") if name in known}
    try:
        found = MendedSpec.model_validate(parts)
    except ValidationError:
        # Nothing of it can be used but what it ships, if even that is known.
        name, number = known.get("model", "unknown"), known.get("version", 1)
        found = MendedSpec.model_construct(model=name, version=number)
    return found.noting(value, tuple(_fault(one) for one in error.errors()[:_MOST]))


def _fault(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "the plan"
    unknown = error["type"] == "extra_forbidden"
    why = "this version does not know it" if unknown else error["msg"].removeprefix("Value error, ")
    said = f"{where}: {why}"
    return said if len(said) <= _WORDS else said[: _WORDS - 1] + "…"


StoredSpec = Annotated[RolloutSpec, WrapValidator(_read)]
"""A plan that was accepted once: where parts of it are refused by now it is a ``MendedSpec``."""
