"""``If-Match`` on edits: who changes something says which revision of it they looked at.

RFC 9110, sections 8.8.3 and 13.1.1; RFC 6585, section 3, for those that do not say it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated

from fastapi import Depends, Header, Response

from orchestrator.errors import Invalid, PreconditionRequired

_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"')
_LIST = re.compile(rf"\s*{_TAG.pattern}(\s*,\s*{_TAG.pattern})*\s*")


def revisions(
    if_match: Annotated[str | None, Header(max_length=1000)] = None,
) -> Collection[int] | None:
    """The revisions that the caller takes for the present one; None for any (``*``).

    Tags are compared strongly: a weak one, or one that is no number of ours, matches nothing.

    Raises:
        PreconditionRequired: nothing was said.
        Invalid: it is no list of tags.
    """
    if if_match is None:
        msg = "say which revision is changed: If-Match with the ETag that you were given"
        raise PreconditionRequired(msg, hint='as in If-Match: "3"')
    if if_match.strip() == "*":
        return None
    if _LIST.fullmatch(if_match) is None:
        msg = f'If-Match: {if_match!r} is no entity tag, as in "3"'
        raise Invalid(msg)
    found = [(bool(one[1]), one[2]) for one in _TAG.finditer(if_match)]
    return frozenset(
        int(text) for weak, text in found if not weak and text.isascii() and text.isdigit()
    )


Revisions = Annotated[Collection[int] | None, Depends(revisions)]


def stated_revisions(
    if_match: Annotated[str | None, Header(max_length=1000)] = None,
) -> Collection[int] | None:
    """As ``revisions``, where nothing needs to be said; None for any then.

    Raises:
        Invalid: it is no list of tags.
    """
    return None if if_match is None else revisions(if_match)


StatedRevisions = Annotated[Collection[int] | None, Depends(stated_revisions)]


def tell_revision(response: Response, revision: int) -> None:
    """Say which revision an answer shows."""
    response.headers["etag"] = f'"{revision}"'
