"""The manifest's pre- and post-processing, where a request asks for it."""

from __future__ import annotations

from collections.abc import Mapping

from edge_client.errors import InputError
from edge_client.inference import Array, Loaded
from edge_client.server.request import Ask


def prepared(ask: Ask, loaded: Loaded) -> Mapping[str, Array]:
    """The arrays to check and run.

    Raises:
        InputError: an input is BYTES.
    """
    arrays: dict[str, Array] = {}
    for name, value in ask.inputs.items():
        if isinstance(value, list):
            msg = f"input {name!r} is BYTES, and {loaded.slot.model} decodes no images"
            raise InputError(msg)
        arrays[name] = value
    return arrays


def records_of(
    ask: Ask, loaded: Loaded, outputs: Mapping[str, Array], n: int
) -> tuple[bytes, ...] | None:
    """What the post-processing makes of an answer; None where nobody asked."""
    del loaded, outputs, n
    return None if not ask.finish else ()
