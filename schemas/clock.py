"""What time it is, asked and answered: so that windows carry the server's time.

Cristian's algorithm (Distributed Computing 3, 1989): the answer holds for the middle between
asking and hearing it, and is off by at most half of that time.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.base import Count, Wire


class TimeAsk(Wire):
    """On ``up/time``, QoS 0. id: is given back."""

    id: Count


class TimeReply(Wire):
    """On ``down/time``, QoS 0. at: seconds since 1970 when the answer was made."""

    id: Count
    at: Annotated[float, Field(ge=0, le=1e11)]
