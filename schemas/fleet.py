"""Fleets: selectors that were saved under a name; and the tags of devices."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from schemas.base import MAX_INTEGER, Authored, PlainText, UtcTime, Wire
from schemas.device import MAX_TAGS, Presence, Tag
from schemas.ids import Name, RolloutId
from schemas.selector import SelectorText


class FleetSpec(Authored):
    """What an operator says of a fleet. note: for people."""

    selector: SelectorText
    note: Annotated[PlainText, StringConstraints(max_length=500)] = ""


class FleetShare(Wire):
    """How many members of a fleet are of a class, and how present they are."""

    device_class: Name
    presence: Presence
    devices: int


class FleetView(Wire):
    """A fleet, as the API shows it.

    members: the active devices that match now; devices: how many. Listings count none (None).
    rollouts: those that are not over and name it; more than a hundred are not listed.
    """

    name: Name
    spec: FleetSpec
    devices: int | None = None
    members: tuple[FleetShare, ...] = ()
    rollouts: tuple[RolloutId, ...] = ()
    created_at: UtcTime
    updated_at: UtcTime


class DeviceTags(Authored):
    """All tags that a device is to have."""

    tags: Annotated[tuple[Tag, ...], Field(max_length=MAX_TAGS)]


_Tags = Annotated[tuple[Tag, ...], Field(max_length=MAX_TAGS)]


class TagChange(Authored):
    """Tags that a device is given, and tags that are taken from it; the others stay."""

    add: _Tags = ()
    remove: _Tags = ()

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if not (self.add or self.remove):
            msg = "names no tag to add or to remove"
            raise ValueError(msg)
        both = set(self.add) & set(self.remove)
        if both:
            msg = f"{min(both)} cannot be given and taken away at once"
            raise ValueError(msg)
        return self


class TagMany(TagChange):
    """The same for every device that a selector matches, in any state.

    dry_run: only count. at_most: refused where more devices than that would change.
    """

    where: SelectorText
    dry_run: bool = False
    at_most: Annotated[int, Field(ge=0, le=MAX_INTEGER)] | None = None


class TagsChanged(Wire):
    """How many devices a selector matched, and how many of them changed, or would."""

    matched: int
    changed: int
    dry_run: bool = False
