"""What a change of tags makes of the tags of a device."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def retagged(tags: Sequence[str], add: Sequence[str], remove: Collection[str]) -> tuple[str, ...]:
    """The tags afterwards: those that stay in their order, then the new ones in theirs.

    Args:
        tags: as they are.
        add: to be given; what is there already stays where it is.
        remove: to be taken away; what is not there does not matter.
    """
    kept = [tag for tag in tags if tag not in remove]
    return tuple(dict.fromkeys((*kept, *add)))
