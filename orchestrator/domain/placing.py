"""When a window happened, as far as its device's clock can be believed, and under which names."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.base import MAX_INTEGER

AHEAD_MS = 5 * 60_000
"""How far a clock may run ahead before its time is replaced by ours."""

UNSET_MS = 1_704_067_200_000
"""2024-01-01: a device whose clock is before it has none; it counts from its start or 1970."""

OTHER = "other"

PROVIDERS = frozenset(
    {
        "ACLExecutionProvider",
        "ArmNNExecutionProvider",
        "AzureExecutionProvider",
        "CANNExecutionProvider",
        "CPUExecutionProvider",
        "CUDAExecutionProvider",
        "CoreMLExecutionProvider",
        "DmlExecutionProvider",
        "DnnlExecutionProvider",
        "JsExecutionProvider",
        "MIGraphXExecutionProvider",
        "NnapiExecutionProvider",
        "NvTensorRTRTXExecutionProvider",
        "OpenVINOExecutionProvider",
        "QNNExecutionProvider",
        "ROCMExecutionProvider",
        "RknpuExecutionProvider",
        "SNPEExecutionProvider",
        "TensorrtExecutionProvider",
        "TvmExecutionProvider",
        "VSINPUExecutionProvider",
        "VitisAIExecutionProvider",
        "VulkanExecutionProvider",
        "WebGpuExecutionProvider",
        "WebNNExecutionProvider",
        "XnnpackExecutionProvider",
    }
)
"""Those that ONNX Runtime knows (``get_all_providers``). Any other counts as ``OTHER``, so that no
device makes a roll-up grow by inventing names."""


def place(start_ms: int, now_ms: int, keep_ms: int, *, synced: bool) -> tuple[int, bool] | None:
    """When a window counts as begun, and whether its own time was not believed.

    A start in the future, or from a clock that was never set, becomes ``now_ms``.

    Args:
        start_ms: what the device says, in milliseconds since 1970.
        now_ms: when it was received.
        keep_ms: how long windows are kept.
        synced: whether the device had the time from the server.

    Returns:
        None for one older than windows are kept: nobody could tell whether it was counted.
    """
    if start_ms > now_ms + AHEAD_MS or (not synced and start_ms < UNSET_MS):
        return now_ms, True
    return None if start_ms < now_ms - keep_ms else (start_ms, False)


def provider(name: str) -> str:
    """A provider's name as it is counted."""
    return name if not name or name in PROVIDERS else OTHER


def nodes(counts: Mapping[str, int]) -> dict[str, int]:
    """Nodes of the graph by provider as they are counted."""
    found: dict[str, int] = {}
    for name, count in counts.items():
        key = provider(name)
        found[key] = min(found.get(key, 0) + count, MAX_INTEGER)
    return found
