"""The agent's memory: the jobs it claimed, one file each, so that a restart goes on."""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import ValidationError

from schemas.base import Wire
from schemas.job import JobClaim
from workers.files import write_atomic

log = logging.getLogger(__name__)

MAX_BYTES = 4 * 1024**2


class Claimed(Wire):
    """A claim and whether its driver was submitted. submission: its id in Ray."""

    claim: JobClaim
    submission: str
    submitted: bool = False


def submission_of(claim: JobClaim) -> str:
    """The id of a driver in Ray: it follows from job and attempt."""
    return f"{claim.id}-{claim.attempt}"


class Claims:
    """``HOME/agent/claims/``, readable by its owner alone: a claim holds the job's token."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def save(self, claimed: Claimed) -> None:
        """Write one, whole or not at all."""
        write_atomic(self._path(claimed), claimed.model_dump_json().encode(), mode=0o600)

    def remove(self, claimed: Claimed) -> None:
        """Forget one."""
        self._path(claimed).unlink(missing_ok=True)

    def load(self) -> list[Claimed]:
        """All of them; a damaged one is put aside and said so."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                found.append(Claimed.model_validate_json(path.read_bytes()[:MAX_BYTES]))
            except (OSError, ValidationError):
                log.warning("%s is damaged; its job's lease will run out", path)
                path.rename(path.with_suffix(".damaged"))
        return found

    def _path(self, claimed: Claimed) -> Path:
        return self._folder / f"{claimed.submission}.json"
