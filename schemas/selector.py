"""Selectors: which devices, in one small language for API, CLI and page.

The grammar stands in docs/rollouts.md.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from schemas.base import PlainText

MAX_SELECTOR = 2000

SelectorText = Annotated[PlainText, StringConstraints(min_length=1, max_length=MAX_SELECTOR)]
"""A selector as a person wrote it."""
