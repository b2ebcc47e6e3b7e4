"""A net whose layers are narrower than its task makes them, as bytes.

Weights alone do not say how wide the layers are, and a pickled module would be code that runs
when it is read. So the sizes that differ from a fresh net's are kept beside the weights, and
reading takes a fresh net: only tensors and numbers are ever unpickled.
"""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor, nn

from schemas.job import JobCause
from workers.blame import user_code
from workers.errors import JobFailed
from workers.task import Task

Sizes = dict[str, dict[str, Any]]


def pack_net(net: nn.Module, fresh: nn.Module) -> bytes:
    """A net's weights and sizes. fresh: as ``Task.model`` makes it."""
    buffer = io.BytesIO()
    state = {name: value.detach().cpu() for name, value in net.state_dict().items()}
    torch.save({"state": state, "sizes": _sizes(net, fresh)}, buffer)
    return buffer.getvalue()


def load_net(task: Task, data: bytes) -> nn.Module:
    """The net that ``pack_net`` packed, on the CPU and in eval mode.

    Raises:
        JobFailed: internal: it is damaged, or of another task; user_code.
    """
    with user_code():
        net = task.model()
    try:
        stored = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        _resize(net, stored["state"], stored["sizes"])
        net.load_state_dict(stored["state"])
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        detail = f"a trained net cannot be read: {lines[0][:300]}; submit the job again"
        raise JobFailed(JobCause.INTERNAL, detail) from error
    return net.cpu().eval()


def _sizes(net: nn.Module, fresh: nn.Module) -> Sizes:
    found: Sizes = {}
    after = dict(net.named_modules())
    for name, module in fresh.named_modules():
        now = vars(after[name])
        changed = {k: now[k] for k, v in vars(module).items() if _size(v) and now.get(k) != v}
        if changed:
            found[name] = changed
    return found


def _size(value: object) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    return all(type(part) is int for part in parts)


def _resize(net: nn.Module, state: dict[str, Tensor], sizes: Sizes) -> None:
    for name, changed in sizes.items():
        module = net.get_submodule(name)
        for key, value in changed.items():
            setattr(module, key, value)
    for name, value in state.items():
        owner, _, key = name.rpartition(".")
        module = net.get_submodule(owner)
        before = getattr(module, key)
        if isinstance(before, nn.Parameter) and before.shape != value.shape:
            setattr(module, key, nn.Parameter(value.clone(), requires_grad=before.requires_grad))
        elif isinstance(before, Tensor) and before.shape != value.shape:
            setattr(module, key, value.clone())
