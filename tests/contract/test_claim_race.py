"""Agents that ask at the same time, on every database: each job goes to one of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.services.jobs import JobService
from schemas.job import Capacity, ClaimRequest
from schemas.jobfile import JobSpec

pytestmark = pytest.mark.integration

SPEC = JobSpec.model_validate({"name": "digits", "task": "m:T", "stop": {"target": 0.9}})


def test_agents_that_race_for_jobs_never_share_one_and_leave_none(uow, tmp_path):
    artifacts = ArtifactStore(tmp_path / "artifacts")
    jobs = JobService(uow, lambda: datetime.now(UTC), 30, artifacts=artifacts)
    made = {jobs.submit(SPEC).id for _ in range(5)}

    def claim(number):
        request = ClaimRequest(agent=f"agent-{number % 4}", capacity=Capacity(cpus=4))
        return jobs.claim(request)

    with ThreadPoolExecutor(8) as pool:
        claims = [one for one in pool.map(claim, range(16)) if one is not None]
    # Who lost every job of its snapshot to others goes away empty, and asks again.
    claims += [one for one in map(claim, range(5)) if one is not None]
    assert sorted(one.id for one in claims) == sorted(made)
    assert len({one.lease for one in claims}) == len(made)
    with uow.read() as tx:
        assert [agent.name for agent in tx.agents.all()] == [f"agent-{i}" for i in range(4)]
