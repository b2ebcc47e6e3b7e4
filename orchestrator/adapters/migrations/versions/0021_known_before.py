"""What devices served before they were offered a version, as far as the records tell.

Executions that were offered before 0019 do not say it, so a rollback of them had nowhere to lead.
An earlier execution of the model on the same device that succeeded, and was not undone, does.

Revision ID: 0021
Revises: 0020
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_COLUMNS = {"before_version": "theirs.version", "before_variant": "earlier.variant"}

_EARLIER = """
    SELECT {what} FROM executions AS earlier
    JOIN rollouts AS theirs ON theirs.id = earlier.rollout_id
    JOIN rollouts AS its ON its.id = executions.rollout_id
    WHERE earlier.device_id = executions.device_id AND earlier.state = 'SUCCEEDED'
      AND earlier.late IS NULL AND earlier.sequence > 0
      AND earlier.sequence < executions.sequence
      AND theirs.model = its.model AND theirs.version <> its.version
    ORDER BY earlier.sequence DESC LIMIT 1
"""


def upgrade() -> None:
    sets = ", ".join(f"{name} = ({_EARLIER.format(what=w)})" for name, w in _COLUMNS.items())
    unknown = "before_version IS NULL AND sequence > 0"
    op.execute(sa.text(f"UPDATE executions SET {sets} WHERE {unknown}"))  # noqa: S608 - constants


def downgrade() -> None:
    """What was filled in is true for 0020 as well."""
