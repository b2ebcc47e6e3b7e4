"""A checkpoint: the weights, the optimizer and the history, readable without running code."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from schemas.job import JobCause
from workers.errors import JobFailed
from workers.training.stop import History


def pack(model: nn.Module, optimizer: torch.optim.Optimizer, history: History, code: str) -> bytes:
    """A checkpoint, readable with ``weights_only``.

    It holds weights, optimizer, history and ``code_sha256``: the hash of the task's code
    as this training began, which the file may not have any more at the export.
    """
    buffer = io.BytesIO()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": asdict(history),
        "code_sha256": code,
    }
    torch.save(state, buffer)
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, Any]:
    """Read a checkpoint. Only tensors and plain values are ever unpickled.

    Raises:
        JobFailed: it is damaged.
    """
    try:
        state: Mapping[str, Any] = torch.load(
            io.BytesIO(data), map_location="cpu", weights_only=True
        )
        found = {key: state[key] for key in ("model", "optimizer", "history")}
        # Checkpoints did not always name their code.
        return {**found, "code_sha256": state.get("code_sha256")}
    except Exception as error:
        detail = f"the checkpoint cannot be read: {error}; remove the job's folder and submit again"
        raise JobFailed(JobCause.INTERNAL, detail) from error
