"""Fleets: selectors that were saved under a name; and the tags of devices."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from schemas.base import Authored, PlainText, UtcTime, Wire
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
