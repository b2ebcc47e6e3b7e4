"""Ray Train's record of checkpoints, written so that a crash leaves the old or the new.

Its own writing empties the file first: a controller killed there, or a full disk, would leave
a record that no later attempt can read, and the job with it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pyarrow.fs import LocalFileSystem
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import CheckpointManager

from workers.files import write_atomic


def install() -> None:
    """In a controller: write the record like this from now on."""
    kind: Any = CheckpointManager
    kind._write_state_to_storage = write_record  # noqa: SLF001 - it has no setting


def write_record(manager: Any) -> None:
    """Write the record of a ``CheckpointManager``, after the checkpoint that it names."""
    context = manager._storage_context  # noqa: SLF001 - see install
    files, path = context.storage_filesystem, context.checkpoint_manager_snapshot_path
    record = manager._save_state().encode()  # noqa: SLF001 - likewise
    if not isinstance(files, LocalFileSystem):
        with files.open_output_stream(path) as file:  # an object store takes it whole
            file.write(record)
        return
    latest = manager.latest_checkpoint_result
    if latest is not None:
        _sync(Path(latest.checkpoint.path))
    write_atomic(Path(path), record)


def _sync(folder: Path) -> None:
    """See that a checkpoint is on the disk, not only on its way to it."""
    for path in (*folder.rglob("*"), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
