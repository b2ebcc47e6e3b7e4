"""Agents: who has asked for work of late, and what their clusters have."""

from __future__ import annotations

import hmac
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.errors import LeaseLost
from orchestrator.services import keys
from orchestrator.services.ports import Transaction, UnitOfWork
from orchestrator.services.records import AgentRecord, JobRecord
from schemas.job import AgentView

FRESH = timedelta(seconds=10)
"""An agent that asks again so soon is not written again: most polls only read."""

FORGOTTEN = timedelta(days=1)
MAX_AGENTS = 1000
"""Known at once; of more, those that have not asked for the longest are forgotten."""


def is_news(known: AgentRecord | None, agent: AgentRecord) -> bool:
    """Whether an agent is worth a write."""
    if known is None or known.capacity != agent.capacity:
        return True
    return agent.seen_at - known.seen_at >= FRESH


def save(tx: Transaction, agent: AgentRecord) -> None:
    """Keep an agent that asks for work, and forget those that have not for a day."""
    if is_news(tx.agents.get(agent.name), agent):
        tx.agents.save(agent)
        tx.agents.prune(agent.seen_at - FORGOTTEN, MAX_AGENTS)


def heard(tx: Transaction, name: str | None, now: datetime) -> None:
    """Note that an agent lives, also while it is too busy to ask for work."""
    known = None if name is None else tx.agents.get(name)
    if known is not None and now - known.seen_at >= FRESH:
        tx.agents.save(replace(known, seen_at=now))


class AgentService:
    """What the API shows of agents.

    Args:
        uow: opens transactions.
    """

    def __init__(self, uow: UnitOfWork) -> None:
        self._uow = uow

    def page(self, after: str | None, limit: int) -> Sequence[AgentView]:
        """Agents by name, with the jobs that they hold."""
        with self._uow.read() as tx:
            records = [a for a in tx.agents.all() if after is None or a.name > after][:limit]
            held: dict[str | None, list[str]] = defaultdict(list)
            for job in tx.jobs.active():
                held[job.agent].append(job.id)
        return [
            AgentView(
                name=record.name,
                capacity=record.capacity,
                seen_at=record.seen_at,
                jobs=tuple(held[record.name]),
            )
            for record in records
        ]


def check_lease(record: JobRecord, lease: str) -> None:
    """See that an agent still has a job.

    Raises:
        LeaseLost: another attempt has it, or it has ended.
    """
    if record.lease_hash is None or not hmac.compare_digest(record.lease_hash, keys.digest(lease)):
        msg = f"the lease on {record.id} is not yours any more"
        raise LeaseLost(msg)
