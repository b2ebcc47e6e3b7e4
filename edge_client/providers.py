"""Which execution provider runs a model: the one that was asked for, or an error that says why.

ONNX Runtime replaces a provider that it cannot start by CPU without a word that a program
hears. So what was asked for is compared with what there is before a session is made, and with
what the session uses afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_client.errors import LoadError
from edge_client.sessions import SessionSettings

CPU = "CPUExecutionProvider"
_SUFFIX = "ExecutionProvider"

_SHORT = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "trt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
_PACKAGES = {
    "CUDAExecutionProvider": "onnxruntime-gpu (with CUDA and cuDNN)",
    "TensorrtExecutionProvider": "onnxruntime-gpu (with TensorRT)",
    "NvTensorRTRTXExecutionProvider": "onnxruntime-trt-rtx",
    "OpenVINOExecutionProvider": "onnxruntime-openvino",
    "DmlExecutionProvider": "onnxruntime-directml",
    "MIGraphXExecutionProvider": "onnxruntime-migraphx",
    "ROCMExecutionProvider": "onnxruntime-rocm",
    "QNNExecutionProvider": "onnxruntime-qnn",
    "CANNExecutionProvider": "onnxruntime-cann",
    "WebGpuExecutionProvider": "onnxruntime-webgpu",
}
"""What brings a provider; it takes the place of the package onnxruntime."""

_DETAIL = {"CUDAExecutionProvider": "device_id", "OpenVINOExecutionProvider": "device_type"}
_DETAIL["TensorrtExecutionProvider"] = "device_id"
"""What stands behind the colon of ``cuda:1`` and ``openvino:GPU``, as the provider names it."""

_BELOW = {"TensorrtExecutionProvider": ("CUDAExecutionProvider",)}
"""What runs the nodes that a provider leaves, before CPU does."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a session is asked for.

    provider: the one that is to run the model. wanted: the one that was asked for where that
    is another, else "". chain: what the session is given, best first, each with its options.
    """

    provider: str
    wanted: str
    chain: tuple[tuple[str, dict[str, str]], ...]


def choose(settings: SessionSettings, required: Sequence[str], available: Sequence[str]) -> Choice:
    """Decide.

    Args:
        settings: what the device's owner asked for.
        required: what the variant runs on, best first; nothing means CPU.
        available: what this build of ONNX Runtime has.

    Raises:
        LoadError: it is not there, and CPU may not take its place.
    """
    if settings.provider is None:
        names = tuple(required) or (CPU,)
        usable = next((name for name in names if name in available), None)
        if usable is not None:
            return _choice(usable, settings.provider_options, available)
        if settings.fallback and CPU in available:
            return Choice(CPU, names[0], ((CPU, {}),))
        msg = f"it needs one of {', '.join(names)}; this device has {', '.join(available)}"
        raise LoadError(msg, hint=_bring(names[0]))
    name, options = named(settings.provider, available)
    if name in available:
        return _choice(name, {**options, **settings.provider_options}, available)
    if settings.fallback and CPU in available:
        return Choice(CPU, name, ((CPU, {}),))
    msg = f"{name} was asked for; this device has {', '.join(available)}"
    raise LoadError(msg, hint=_bring(name))


def named(text: str, available: Sequence[str] = ()) -> tuple[str, dict[str, str]]:
    """A provider's full name and options from what a person writes.

    ``cuda``, ``CUDA:1``, ``openvino:NPU``, ``XnnpackExecutionProvider`` and ``xnnpack`` are read;
    a name that nobody knows stands for itself, so that new providers need no new release.
    """
    word, _, detail = text.strip().partition(":")
    full = _SHORT.get(word.lower()) or (word if word.endswith(_SUFFIX) else word + _SUFFIX)
    known = {name.lower(): name for name in (*available, *_PACKAGES, CPU)}
    name = known.get(full.lower(), full)
    key = _DETAIL.get(name)
    if detail and key is None:
        msg = f"nobody knows what {detail!r} means to {name}"
        raise LoadError(msg, hint="give its own option: --provider-option KEY=VALUE")
    return name, {key: detail} if key and detail else {}


def _choice(name: str, options: Mapping[str, str], available: Sequence[str]) -> Choice:
    chain = [(name, dict(options))]
    chain += [(below, {}) for below in _BELOW.get(name, ()) if below in available]
    if name != CPU:
        chain.append((CPU, {}))  # what it cannot run; how much that is, `nodes` tells
    return Choice(name, "", tuple(chain))


def _bring(name: str) -> str:
    package = _PACKAGES.get(name)
    if package is None:
        return f"install a build of ONNX Runtime that has {name}"
    return (
        f"install {package} in place of onnxruntime, or allow CPU in its place"
        " with --provider-fallback"
    )
