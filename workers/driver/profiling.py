"""The look at the data before training, beside the start of the workers.

It takes as long as reading every sample; the workers' processes take their seconds too.
Whichever fails first: what the data's profile says comes first.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.dataset import DatasetProfile
from schemas.jobfile import JobSpec
from workers.blame import blame
from workers.errors import JobFailed
from workers.files import write_atomic

log = logging.getLogger("workers.driver")

FILE = "profile.json"
MAX_FILE = 16 * 1024**2


class Profiling:
    """Looks at the data on a thread of its own, once per job.

    Args:
        spec: the job.
        folder: the job's, where the profile is kept; None if it is a URL.
        tell: takes the profile.
        fail: is told why the data cannot be trained on; it ends the job.
    """

    def __init__(
        self,
        spec: JobSpec,
        folder: Path | None,
        tell: Callable[[DatasetProfile], None],
        fail: Callable[[JobFailed], None],
    ) -> None:
        self._spec, self._tell, self._fail = spec, tell, fail
        self._path = None if folder is None else folder / FILE
        self._found: DatasetProfile | None = None
        self._failure: JobFailed | None = None
        self._thread = threading.Thread(target=self._run, name="profile", daemon=True)

    def start(self) -> None:
        """Begin, unless an earlier attempt has left its profile."""
        self._found = read(self._path) if self._path is not None else None
        if self._found is not None:
            self._tell(self._found)
            return
        self._thread.start()

    def result(self) -> DatasetProfile | None:
        """The profile, once it is made; None if it was never begun.

        Raises:
            JobFailed: the data cannot be trained on.
        """
        if self._thread.ident is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._found

    def _run(self) -> None:
        try:
            found = self._make()
        except Exception as error:  # noqa: BLE001 - whatever it is, the job ends by it
            self._failure = blame(error)
            self._fail(self._failure)
            return
        self._found = found
        if self._path is not None:
            try:
                write_atomic(self._path, found.model_dump_json().encode())
            except OSError as error:
                log.warning("the profile is not kept: %s", error)
        for problem in found.problems:
            log.warning("data: %s", problem)
        self._tell(found)

    def _make(self) -> DatasetProfile:
        from workers.inspection.dataset import profile_splits  # noqa: PLC0415 - torch
        from workers.task import load_task  # noqa: PLC0415 - likewise
        from workers.training.watchdog import Watchdog  # noqa: PLC0415 - with them

        spec = self._spec
        seconds = spec.training.hang_minutes * 60
        with Watchdog(seconds, 0, lambda hang: self._fail(hung_here(hang))) as watchdog:
            task = load_task(spec.entrypoint, spec.config, spec.seed, spec.dataset.path)
            watch_reading(task, watchdog.beat)
            return profile_splits(task, task.splits(), spec.dataset)


def hung_here(hang: Any) -> JobFailed:
    """A hang in the driver, as the job's end."""
    from workers.distributed.verdict import hung  # noqa: PLC0415 - with the watchdog

    return hung({"rank": hang.rank, "detail": hang.detail}, workers=1)


def read(path: Path) -> DatasetProfile | None:
    """The profile that an earlier attempt has left, if it can be read."""
    try:
        with path.open("rb") as file:
            return DatasetProfile.model_validate_json(file.read(MAX_FILE))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("%s cannot be used, the data is looked at again: %s", path, type(error))
        return None


class Beating:
    """A split whose every read is a sign of progress."""

    def __init__(self, samples: Any, beat: Callable[[], None]) -> None:
        self._samples = samples
        self._beat = beat

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Any:
        self._beat()
        return self._samples[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._samples, name)


def watch_reading(task: Any, beat: Callable[[], None]) -> None:
    """Make the task's splits beat when they are read: a large set is no hang."""
    from workers.task import SPLITS, Splits  # noqa: PLC0415 - torch

    original = task.splits

    def splits() -> Splits:
        made = original()
        beat()
        return Splits(**{name: Beating(made.get(name), beat) for name in SPLITS})

    task.splits = splits
