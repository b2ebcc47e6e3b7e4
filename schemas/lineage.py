"""What a version is made from, as its job names it and its manifest keeps it.

Apart from the job file, of which a device needs nothing else.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from schemas.base import Authored, PlainText
from schemas.ids import Sha256

MAX_CODE_BYTES = 64 * 1024**2
"""Of a packed code folder, which is a zip archive of plain files."""

MAX_UNPACKED_BYTES = 256 * 1024**2
MAX_CODE_FILES = 20_000

Choice = Annotated[PlainText, StringConstraints(max_length=1000)] | int | float | bool | None
"""The value of a parameter."""

ModelRef = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?@[1-9][0-9]{0,9}$")
]
"""A model version as ``name@number``."""


class Code(Authored):
    """The user's folder, packed and uploaded; in a job file: the folder's path.

    sha256, size: of the archive, which is the artifact of that digest. files: how many it
    holds. requirements: it has a ``requirements.txt`` to install. git_commit: what the
    folder was checked out from, if anything; git_dirty: with changes of its own.
    """

    sha256: Sha256
    size: Annotated[int, Field(gt=0, le=MAX_CODE_BYTES)]
    files: Annotated[int, Field(ge=1, le=MAX_CODE_FILES)]
    requirements: bool = False
    git_commit: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40,64}$")] | None = None
    git_dirty: bool = False
