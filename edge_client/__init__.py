"""The device half of Argosy: enroll, pull, verify, activate, infer, measure.

``Edge(home).model().predict(x)`` serves what the device's agent has activated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_client.api import Edge, ServedModel

__all__ = ["Edge", "ServedModel"]


def __getattr__(name: str) -> Any:
    """Load the API when it is asked for: onnxruntime costs a device 100 ms."""
    if name in __all__:
        from edge_client import api  # noqa: PLC0415 - this function is the lazy import

        return getattr(api, name)
    msg = f"module 'edge_client' has no attribute {name!r}"
    raise AttributeError(msg)
