"""What comes of an inference, for both protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from edge_client.errors import EdgeError
from edge_client.inference import Array
from edge_client.server.statistics import Times
from edge_client.slots import Slot


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """An answer. outputs: by name, in the order of the signature; n: samples.

    records: what the manifest's post-processing made of it, a JSON text per sample, where the
    request asked for it.
    """

    slot: Slot
    n: int
    outputs: Mapping[str, Array]
    labels: Sequence[str]
    times: Times
    records: tuple[bytes, ...] | None = None


Outcome: TypeAlias = Served | EdgeError
