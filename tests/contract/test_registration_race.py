"""Jobs and operators that register and move aliases at once, on every database."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.errors import Conflict
from orchestrator.services.aliases import AliasService
from orchestrator.services.models import ModelService
from orchestrator.services.records import JobRecord
from schemas.ids import new_id
from schemas.job import JobState
from schemas.jobfile import JobSpec
from schemas.measure import Golden, ModelFile
from schemas.model import AliasRequest, Lineage, Manifest, Variant
from schemas.signature import Signature, TensorSpec
from schemas.transfer import leaves_digest, leaves_of
from tests.fakes.tiny_onnx import tiny_onnx

pytestmark = pytest.mark.integration

SPEC = JobSpec.model_validate(
    {"name": "digits", "task": "m:T", "stop": {"target": 0.9}, "promote": {"alias": "next"}}
)
THREADS = 8


@pytest.fixture
def artifacts(tmp_path):
    return ArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def models(uow, tmp_path, artifacts):
    return ModelService(uow, lambda: datetime.now(UTC), artifacts)


def at_once(calls):
    """The results of calls that begin together."""
    ready = threading.Barrier(len(calls))

    def go(call):
        ready.wait(20)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(go, calls))


def manifest(artifacts, content, job=None):
    data = tiny_onnx(content)
    leaves = leaves_digest(leaves_of([data]))
    file = ModelFile(path="m.onnx", size=len(data), sha256="0" * 64, leaves_sha256=leaves)
    stored = artifacts.put([data], digest(data), len(data))
    file = file.model_copy(update={"sha256": stored.sha256})
    tensor = TensorSpec(name="x", dtype="uint8", shape=(-1, 4))
    golden = Golden(file=file, samples=1, tolerance=0.1)
    variant = Variant(
        id="fp32", precision="fp32", scheme="none", opset=20, file=file, golden=golden
    )
    return Manifest(
        model="digits",
        signature=Signature(inputs=(tensor,), outputs=(tensor,)),
        variants=(variant,),
        lineage=Lineage(job=job),
    )


def digest(data):
    return hashlib.sha256(data).hexdigest()


def running(uow):
    """A job that an agent holds."""
    now = datetime.now(UTC)
    record = JobRecord(
        id=new_id("job"),
        name="digits",
        state=JobState.REGISTERING,
        spec=SPEC,
        attempt=1,
        max_attempts=3,
        lease_until=now + timedelta(minutes=5),
        created_at=now,
    )
    with uow() as tx:
        tx.jobs.add(record)
    return record.id


def test_jobs_that_register_at_once_get_numbers_without_a_gap(uow, models, artifacts):
    jobs = [running(uow) for _ in range(THREADS)]
    made = [manifest(artifacts, b"%d" % n, job) for n, job in enumerate(jobs)]
    # Each job asks twice at once: its agent and a driver that was thought dead.
    pairs = [*zip(made, jobs, strict=True)] * 2
    calls = [lambda m=m, j=j: models.register("digits", m, j) for m, j in pairs]
    answers = at_once(calls)
    assert Counter(a.version for a in answers) == dict.fromkeys(range(1, THREADS + 1), 2)
    assert sum(a.created for a in answers) == THREADS
    by_job = {}
    for (_, job), answer in zip(pairs, answers, strict=True):
        assert by_job.setdefault(job, answer.version) == answer.version
    with uow.read() as tx:
        assert tx.models.last_version("digits") == THREADS
        changes = [change for _, change in tx.models.alias_changes("digits", "next", None, 50)]
        assert tx.models.aliases("digits") == {"champion": 1, "next": THREADS}
    assert [c.version for c in changes] == list(range(THREADS, 0, -1))
    assert [c.before for c in changes] == [*range(THREADS - 1, 0, -1), None]
    assert {c.version: c.by for c in changes} == {v: j for j, v in by_job.items()}


def test_one_manifest_gets_one_number_however_many_bring_it(uow, models, artifacts):
    one = manifest(artifacts, b"same")
    answers = at_once([lambda: models.register("digits", one, None)] * THREADS)
    assert {a.version for a in answers} == {1}
    assert sum(a.created for a in answers) == 1


def test_of_those_who_expect_the_same_one_moves_the_alias(uow, models, artifacts):
    for number in range(THREADS + 1):
        models.register("digits", manifest(artifacts, b"%d" % number), None)
    aliases = AliasService(uow, lambda: datetime.now(UTC))

    def move(version):
        request = AliasRequest(version=version, expected=1)
        try:
            aliases.put("digits", "champion", request, f"key_{version}")
        except Conflict as error:
            return str(error)
        return version

    answers = at_once([lambda v=v: move(v) for v in range(2, THREADS + 2)])
    (winner,) = [a for a in answers if isinstance(a, int)]
    refusals = {a for a in answers if isinstance(a, str)}
    assert refusals == {f"the alias champion is at digits@{winner}, not at digits@1"}
    with uow.read() as tx:
        assert tx.models.aliases("digits") == {"champion": winner}
        assert len(tx.models.alias_changes("digits", "champion", None, 50)) == 2
