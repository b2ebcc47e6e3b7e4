"""What a folder was checked out from, as git tells."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

GIT_SECONDS = 5.0
_COMMIT = re.compile(r"[0-9a-f]{40,64}")


@dataclass(frozen=True, slots=True)
class Revision:
    """commit: the full hash. dirty: the files are not, or not all, as they were there."""

    commit: str
    dirty: bool


def revision(folder: Path, names: Collection[str], seconds: float = GIT_SECONDS) -> Revision | None:
    """The commit that a folder's files are of; None without git or a commit of theirs.

    Args:
        folder: the files' folder, at or below the top of a checkout.
        names: of the files, relative to it, with slashes.
        seconds: that each question to git may take.
    """
    commit = _git(folder, seconds, "rev-parse", "--verify", "HEAD")
    tracked = _git(folder, seconds, "ls-files", "-z", "--", ".")
    if commit is None or not tracked or not _COMMIT.fullmatch(commit.strip()):
        return None
    changed = _git(folder, seconds, "status", "--porcelain", "--untracked-files=no", "--", ".")
    # Whoever cannot be asked has not said that nothing changed.
    dirty = changed is None or bool(changed) or not set(names) <= set(tracked.split("\0"))
    return Revision(commit.strip(), dirty)


def _git(folder: Path, seconds: float, *arguments: str) -> str | None:
    # A hook's or another checkout's variables must not lead to another repository.
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    env |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=False,
            timeout=seconds,
            env=env,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="surrogateescape") if done.returncode == 0 else None
