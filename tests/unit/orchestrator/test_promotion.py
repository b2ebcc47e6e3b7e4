"""Aliases move when a version is registered, or it is said why not."""

from __future__ import annotations

import pytest

from orchestrator.domain.promotion import decide
from schemas.access import Role
from schemas.jobfile import Promote

SPEC = {"name": "digits", "task": "m:T", "stop": {"target": 0.9}}


@pytest.fixture
def run(platform, admin):
    """Registers a manifest by a job with such a promote section."""
    worker = platform.client(platform.key(Role.WORKER))

    def go(promote, manifest):
        admin.post("/v1/jobs", json=SPEC | {"promote": promote})
        claim = worker.post("/v1/worker/claim", json={"agent": "a"}).json()
        driver = platform.client(claim["job_token"])
        body = manifest.model_dump(mode="json")
        answer = driver.post("/v1/models/digits/versions", json=body)
        return claim["id"], answer

    return go


def accurate(platform, value, *, split="test", content=b"weights"):
    manifest = platform.manifest(content=content)
    measured = {"value": value, "split": split, "low": 0.0, "high": 1.0}
    accuracy = manifest.variants[0].accuracy[0].model_copy(update=measured)
    first = manifest.variants[0].model_copy(update={"accuracy": (accuracy,)})
    return manifest.model_copy(update={"variants": (first, *manifest.variants[1:])})


def aliases(admin):
    return admin.get("/v1/models/digits").json()["aliases"]


def lines(admin, job):
    return [(o["level"], o["text"]) for o in admin.get(f"/v1/jobs/{job}/logs").json()["items"]]


def test_an_alias_moves_with_a_version_that_is_good_enough(platform, admin, run):
    promote = {"alias": "candidate", "min_accuracy": 0.95}
    job, answer = run(promote, accurate(platform, 0.95))
    assert answer.status_code == 201
    assert aliases(admin) == {"champion": 1, "candidate": 1}
    assert lines(admin, job) == [("info", "the alias candidate was moved to the new version")]
    job, _ = run(promote, accurate(platform, 0.9499, content=b"worse"))
    assert aliases(admin) == {"champion": 1, "candidate": 1}
    why = (
        "the alias candidate was not moved: int8 has an accuracy of 0.9499 on the test split, "
        "below 0.9500"
    )
    assert lines(admin, job) == [("warning", why)]
    run(promote, accurate(platform, 0.99, content=b"better"))
    assert aliases(admin) == {"champion": 1, "candidate": 3}


def test_registering_again_moves_nothing_back(platform, admin, run):
    manifest = accurate(platform, 0.97)
    _, answer = run({"alias": "candidate"}, manifest)
    assert answer.json()["version"] == 1
    platform.models.register("digits", platform.manifest(content=b"newer"), None)
    with platform.uow() as tx:
        tx.models.set_alias("digits", "candidate", 2)
    _, again = run({"alias": "candidate"}, manifest)
    assert again.json() == {"model": "digits", "version": 1, "created": False}
    assert aliases(admin)["candidate"] == 2


def test_only_the_test_split_counts(platform):
    manifest = accurate(platform, 0.99, split="validation")
    told = decide(Promote(alias="next", min_accuracy=0.5), manifest, first=True)
    assert told.aliases == ()
    assert "has no accuracy on the test split" in told.text
    assert decide(Promote(alias="next"), manifest, first=False).aliases == ("next",)


def test_a_first_version_becomes_the_champion_unless_it_misses_its_bar(platform):
    manifest = accurate(platform, 0.8)
    assert decide(Promote(), manifest, first=True).aliases == ("champion",)
    assert decide(Promote(), manifest, first=False).aliases == ()
    assert decide(Promote(alias="champion"), manifest, first=True).aliases == ("champion",)
    assert decide(Promote(min_accuracy=0.9), manifest, first=True).aliases == ()


def test_a_lineage_that_names_another_job_is_refused(platform, admin, run):
    manifest = platform.manifest()
    other = manifest.lineage.model_copy(update={"job": "job_" + "0" * 16})
    _, answer = run({}, manifest.model_copy(update={"lineage": other}))
    assert answer.status_code == 403
    assert "job_0000000000000000" in answer.json()["detail"]
    assert admin.get("/v1/models/digits").status_code == 404


def test_batch_inference_registers_nothing(platform, admin):
    platform.models.register("digits", platform.manifest(), None)
    batch = {"name": "digits", "batch": {"model": "digits@1", "input": "/i", "output": "/o"}}
    admin.post("/v1/jobs", json=batch)
    worker = platform.client(platform.key(Role.WORKER))
    claim = worker.post("/v1/worker/claim", json={"agent": "a"}).json()
    body = platform.manifest(content=b"mine").model_dump(mode="json")
    answer = platform.client(claim["job_token"]).post("/v1/models/digits/versions", json=body)
    assert answer.status_code == 403
    assert admin.get("/v1/models/digits").json()["versions"] == [1]
