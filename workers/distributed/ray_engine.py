"""The loop's surroundings on a Ray Train worker."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workers.distributed.board import Vitals
from workers.distributed.logs import Level
from workers.distributed.mailbox import HANG, LIVE, LOG, USAGE, Mailbox
from workers.training.steps import Step
from workers.training.watchdog import Hang, Watchdog

CHECKPOINT = "checkpoint.pt"
FLUSH_SECONDS = 3.0


class RayEngine:
    """Restores, reports, beats, and tells how it goes.

    Args:
        mailbox: of the job.
        trial: of a sweep, from 1; else 0.
        watchdog: fed by every beat.
        scratch: an existing folder for a checkpoint on its way to the storage.
        device: a ``torch.device``.
    """

    def __init__(
        self, mailbox: Mailbox, trial: int, watchdog: Watchdog, scratch: Path, device: Any
    ) -> None:
        import ray.train  # noqa: PLC0415 - on a worker only

        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device = device
        self._mailbox = mailbox
        self._trial = trial
        self._watchdog = watchdog
        self._scratch = scratch

    def restore(self) -> bytes | None:
        """The last checkpoint of this run, of whatever attempt."""
        import ray.train  # noqa: PLC0415 - see __init__

        found = ray.train.get_checkpoint()
        if found is None:
            return None
        with found.as_directory() as folder:
            return (Path(folder) / CHECKPOINT).read_bytes()

    def report(self, metrics: Mapping[str, float], checkpoint: bytes | None) -> None:
        """Report an epoch, with a checkpoint if there is one: a barrier over the workers."""
        import ray.train  # noqa: PLC0415 - see __init__

        self.beat()
        if checkpoint is None:
            ray.train.report(dict(metrics))
        else:
            with tempfile.TemporaryDirectory(prefix="checkpoint-", dir=self._scratch) as folder:
                (Path(folder) / CHECKPOINT).write_bytes(checkpoint)
                found = ray.train.Checkpoint.from_directory(folder)
                ray.train.report(dict(metrics), checkpoint=found)
        self.beat()

    def beat(self) -> None:
        """Progress was made."""
        self._watchdog.beat()

    def live(self, step: Step) -> None:
        """Tell the driver how the epoch goes."""
        self._mailbox.send(LIVE, {"trial": self._trial, "step": asdict(step)})


def teller(mailbox: Mailbox, trial: int, rank: int) -> Callable[[Vitals], None]:
    """What tells the driver how this process does; its name is no other process's."""
    name = f"{trial}-{rank}-{os.getpid()}-{os.urandom(4).hex()}"

    def tell(vitals: Vitals) -> None:
        mailbox.send(USAGE, {"worker": name, "vitals": asdict(vitals)})

    return tell


def printer(mailbox: Mailbox, trial: int, rank: int | None) -> Callable[[Level, str], None]:
    """What hands lines to the driver. trial, rank: named in front, unless 0 or None."""
    parts = [f"trial {trial}"] if trial else []
    parts += [] if rank is None else [f"rank {rank}"]
    front = f"[{', '.join(parts)}] " if parts else ""

    def say(level: Level, text: str) -> None:
        mailbox.send(LOG, {"level": level, "text": f"{front}{text}"})

    return say


def hang_teller(
    mailbox: Mailbox, trial: int, then: Callable[[BaseException], Any]
) -> Callable[[Hang], None]:
    """What the watchdog calls: tells the mailbox, and then Ray Train's controller."""

    def tell(hang: Hang) -> None:
        mailbox.send(HANG, {"trial": trial, **asdict(hang)})
        mailbox.flush(FLUSH_SECONDS)
        then(HungError(hang.rank, hang.detail))

    return tell


class HungError(RuntimeError):
    """A worker of this rank makes no steps; the mailbox knows what the others say."""

    def __init__(self, rank: int, detail: str) -> None:
        super().__init__(detail)
        self.rank = rank
        self.detail = detail

    def __reduce__(self) -> tuple[type[HungError], tuple[int, str]]:
        return type(self), (self.rank, self.detail)
