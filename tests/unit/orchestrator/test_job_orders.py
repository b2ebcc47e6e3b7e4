"""What a job's key opens: its order, its code, its batch's model, and nothing else."""

from __future__ import annotations

import hashlib

import pytest

from schemas.access import Role
from schemas.job import JobOrder
from schemas.model import Manifest
from tests.unit.orchestrator.test_route_rights import OPEN, TABLE, call

SPEC = {"name": "digits", "task": "m:T", "stop": {"target": 0.97}}
BATCH = {"name": "score", "batch": {"model": "digits@1", "input": "/in", "output": "/out"}}
CODE = b"a packed folder"
DIGEST = hashlib.sha256(CODE).hexdigest()


@pytest.fixture
def worker(platform):
    return platform.client(platform.key(Role.WORKER))


@pytest.fixture
def uploaded(admin):
    assert admin.put(f"/v1/artifacts/{DIGEST}", content=CODE).is_success
    return {"sha256": DIGEST, "size": len(CODE), "files": 1}


def start(platform, admin, worker, spec):
    """Submit and claim: the claim and the client of the driver."""
    answer = admin.post("/v1/jobs", json=spec)
    assert answer.status_code == 201, answer.text
    claim = worker.post("/v1/worker/claim", json={"agent": "a"}).json()
    assert claim["id"] == answer.json()["id"]
    return claim, platform.client(claim["job_token"])


def test_a_driver_reads_what_it_is_to_do_while_its_job_runs(platform, admin, worker, uploaded):
    claim, driver = start(platform, admin, worker, SPEC | {"code": uploaded})
    path = f"/v1/jobs/{claim['id']}/order"
    order = JobOrder.model_validate(driver.get(path).json())
    assert (order.id, order.attempt, order.lease_seconds) == (claim["id"], 1, 30)
    assert order.spec.code.sha256 == DIGEST
    assert order.manifest is None
    assert "lease" not in set(driver.get(path).json()) - {"lease_seconds"}
    assert admin.get(path).status_code == 403
    assert worker.get(path).status_code == 403
    ended = {"attempt": 1, "seq": 0, "state": "FAILED", "cause": "user_code"}
    driver.post(f"/v1/jobs/{claim['id']}/progress", json=ended)
    assert driver.get(path).json()["code"] == "lease_lost"
    assert driver.get(f"/v1/artifacts/{DIGEST}").json()["code"] == "lease_lost"


def test_the_order_of_batch_inference_holds_the_manifest(platform, admin, worker):
    made = platform.manifest()
    platform.models.register("digits", made, None)
    claim, driver = start(platform, admin, worker, BATCH)
    order = driver.get(f"/v1/jobs/{claim['id']}/order").json()
    assert Manifest.model_validate(order["manifest"]) == made
    done = {"attempt": 1, "seq": 0, "state": "SUCCEEDED", "model": "other", "version": 9}
    assert driver.post(f"/v1/jobs/{claim['id']}/progress", json=done).is_success
    view = admin.get(f"/v1/jobs/{claim['id']}").json()
    assert (view["state"], view["model"], view["version"]) == ("SUCCEEDED", None, None)


def test_a_jobs_key_opens_its_own_part_of_the_api_and_nothing_else(platform, admin, worker):
    other = admin.post("/v1/jobs", json=SPEC).json()["id"]
    claim, _ = start(platform, admin, worker, SPEC | {"priority": 1})
    driver = platform.client(claim["job_token"])
    platform.stopping.set()  # streams end at once
    apart = {"DELETE /v1/session", "GET /v1/artifacts/{sha256}", "GET /docs"}
    for route in sorted(set(TABLE) - apart):
        if TABLE[route] is OPEN:
            continue
        for job_id in (claim["id"], other):
            status = call(driver, route.replace("{job_id}", job_id))
            theirs = "{job_id}" in route and job_id == other
            assert (status != 403) == (Role.JOB in TABLE[route] and not theirs), (route, status)


def test_a_job_reads_its_own_code_and_no_other_artifact(platform, admin, worker, uploaded):
    theirs = b"another's folder"
    other = hashlib.sha256(theirs).hexdigest()
    admin.put(f"/v1/artifacts/{other}", content=theirs)
    platform.models.register("digits", platform.manifest(), None)
    weights = platform.manifest().variants[0].file.sha256
    _, driver = start(platform, admin, worker, SPEC | {"code": uploaded})
    assert driver.get(f"/v1/artifacts/{DIGEST}").content == CODE
    for digest in (other, weights, "0" * 64):
        assert driver.get(f"/v1/artifacts/{digest}").status_code == 403
    assert driver.put(f"/v1/artifacts/{other}", content=theirs).is_success
    assert driver.get(f"/v1/artifacts/{other}").status_code == 403


def test_batch_inference_reads_the_files_of_its_version_alone(platform, admin, worker):
    first, second = platform.manifest(), platform.manifest(content=b"newer")
    for manifest in (first, second):
        platform.models.register("digits", manifest, None)
    _, driver = start(platform, admin, worker, BATCH)
    for file in first.files():
        assert driver.get(f"/v1/artifacts/{file.sha256}").status_code == 200
    newer = {file.sha256 for file in second.files()} - {file.sha256 for file in first.files()}
    assert newer
    for digest in newer:
        assert driver.get(f"/v1/artifacts/{digest}").status_code == 403


def refusal(admin, spec):
    answer = admin.post("/v1/jobs", json=spec)
    assert admin.get("/v1/jobs").json()["items"] == []
    problem = answer.json()
    return answer.status_code, problem["code"], problem["detail"], problem.get("hint")


def test_code_that_was_not_uploaded_is_refused(admin):
    code = {"sha256": DIGEST, "size": 5, "files": 1}
    status, name, detail, hint = refusal(admin, SPEC | {"code": code})
    assert (status, name) == (404, "not_found")
    assert DIGEST in detail
    assert f"PUT /v1/artifacts/{DIGEST}" in hint


def test_code_of_another_size_is_refused(admin, uploaded):
    status, name, detail, _ = refusal(admin, SPEC | {"code": uploaded | {"size": 5}})
    assert (status, name) == (409, "conflict")
    assert "has 15 bytes, not 5" in detail


def test_a_model_that_is_not_there_is_refused(platform, admin):
    assert refusal(admin, BATCH)[:2] == (404, "not_found")
    platform.models.register("digits", platform.manifest(), None)
    wrong = BATCH | {"batch": BATCH["batch"] | {"model": "digits@2"}}
    status, _, detail, _ = refusal(admin, wrong)
    assert status == 404
    assert "there is digits@1" in detail


def test_a_variant_that_is_not_there_is_refused_with_those_there_are(platform, admin):
    platform.models.register("digits", platform.manifest(), None)
    answer = admin.post(
        "/v1/jobs", json=BATCH | {"batch": BATCH["batch"] | {"variant": "int4"}}
    ).json()
    assert answer["code"] == "invalid"
    assert answer["errors"][0]["field"] == "batch.variant"
    assert "it has int8, fp32" in answer["detail"]


def test_a_revoked_version_is_refused_also_when_it_is_revoked_later(platform, admin, worker):
    platform.models.register("digits", platform.manifest(), None)
    claim, driver = start(platform, admin, worker, BATCH)
    revoke(platform)
    assert driver.get(f"/v1/jobs/{claim['id']}/order").json()["code"] == "revoked"
    files = platform.manifest().files()
    assert driver.get(f"/v1/artifacts/{files[0].sha256}").json()["code"] == "revoked"
    answer = admin.post("/v1/jobs", json=BATCH).json()
    assert (answer["status"], answer["code"]) == (409, "revoked")


def revoke(platform):
    from sqlalchemy import text

    with platform.database.begin() as link:
        link.execute(text("UPDATE model_versions SET revoked = true"))


def test_a_workers_key_reads_no_artifact(platform, worker, uploaded):
    assert worker.get(f"/v1/artifacts/{DIGEST}").status_code == 403
    assert platform.client(platform.key(Role.ADMIN)).get(f"/v1/artifacts/{DIGEST}").is_success
