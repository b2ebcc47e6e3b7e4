"""Where data is."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from schemas.base import PlainText

Place = Annotated[PlainText, StringConstraints(min_length=1, max_length=2000)]
"""A folder, file or URL that every node of the cluster sees."""
