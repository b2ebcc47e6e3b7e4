"""Many things in one run, where one bad thing must not spoil the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from edge_client.errors import EdgeError, InferenceError

_T = TypeVar("_T")
_A = TypeVar("_A")


def isolate(
    items: Sequence[_T], run: Callable[[Sequence[_T]], Sequence[_A]]
) -> list[_A | EdgeError]:
    """Run items together and, where that fails, by halves until the bad ones stand alone.

    Among n items, b bad ones cost at most about ``2 * b * log2(n)`` runs more.

    Args:
        items: one at least.
        run: gives an answer for each item, in order; it raises InferenceError when an item
            spoils the run, and may raise another EdgeError that concerns them all.

    Returns:
        An answer, or the error, for each item, in order.
    """
    try:
        return list(run(items))
    except InferenceError as error:
        if len(items) == 1:
            return [error]
    except EdgeError as error:
        return [error] * len(items)
    half = len(items) // 2
    return isolate(items[:half], run) + isolate(items[half:], run)
