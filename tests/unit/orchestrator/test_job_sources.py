"""Jobs that begin with a registered version or with a file made elsewhere."""

from __future__ import annotations

import hashlib

import pytest

from schemas.job import JobOrder
from schemas.model import Lineage, Manifest
from tests.unit.orchestrator.test_job_orders import start, worker  # noqa: F401 - a fixture

FILE = b"onnx, some would say"
DIGEST = hashlib.sha256(FILE).hexdigest()
ONNX = {"name": "digits", "onnx": {"file": DIGEST, "size": len(FILE)}}
BASE = {"name": "digits", "task": "m:T", "base": "digits@1"}


@pytest.fixture
def trained(platform) -> Manifest:
    """A version that a training made, with its weights."""
    weights = platform.file("weights.pt", b"a state of weights")
    lineage = Lineage(task="m:T", epochs=4)
    made = platform.manifest().model_copy(update={"weights": weights, "lineage": lineage})
    platform.models.register("digits", made, None)
    return made


def refusal(admin, spec):
    answer = admin.post("/v1/jobs", json=spec)
    assert admin.get("/v1/jobs").json()["items"] == []
    problem = answer.json()
    return problem["code"], problem["detail"]


def test_a_job_that_goes_on_reads_the_weights_of_its_version_alone(
    platform,
    admin,
    worker,  # noqa: F811 - the fixture
    trained,
):
    claim, driver = start(platform, admin, worker, BASE)
    order = JobOrder.model_validate(driver.get(f"/v1/jobs/{claim['id']}/order").json())
    assert order.manifest == trained
    assert driver.get(f"/v1/artifacts/{trained.weights.sha256}").content == b"a state of weights"
    for file in (trained.variants[0].file, trained.variants[0].golden.file):
        assert driver.get(f"/v1/artifacts/{file.sha256}").status_code == 403


def test_an_import_reads_its_file_alone(platform, admin, worker, trained):  # noqa: F811
    admin.put(f"/v1/artifacts/{DIGEST}", content=FILE)
    claim, driver = start(platform, admin, worker, ONNX)
    order = JobOrder.model_validate(driver.get(f"/v1/jobs/{claim['id']}/order").json())
    assert order.manifest is None
    assert order.spec.onnx.file == DIGEST
    assert driver.get(f"/v1/artifacts/{DIGEST}").content == FILE
    assert driver.get(f"/v1/artifacts/{trained.weights.sha256}").status_code == 403


@pytest.mark.parametrize("spec", [ONNX, BASE])
def test_without_epochs_they_go_through_the_states_and_register(
    platform,
    admin,
    worker,  # noqa: F811
    trained,
    spec,
):
    admin.put(f"/v1/artifacts/{DIGEST}", content=FILE)
    promote = {"promote": {"alias": "edge"}}
    claim, driver = start(platform, admin, worker, spec | promote)
    path = f"/v1/jobs/{claim['id']}/progress"
    for seq, state in enumerate(("EXPORTING", "OPTIMIZING", "REGISTERING")):
        usage = {"wall_seconds": seq, "cpu_seconds": seq}
        body = {"attempt": 1, "seq": seq, "state": state, "usage": usage}
        assert driver.post(path, json=body).is_success
    lineage = Lineage(job=claim["id"], parent="digits@1" if spec is BASE else None)
    made = platform.manifest(content=b"new").model_copy(update={"lineage": lineage})
    body = made.model_dump(mode="json")
    assert driver.post("/v1/models/other/versions", json=body).status_code in {403, 422}
    number = driver.post("/v1/models/digits/versions", json=body).json()
    assert number["version"] == 2
    done = {"attempt": 1, "seq": 9, "state": "SUCCEEDED", "model": "digits", "version": 2}
    assert driver.post(path, json=done).is_success
    view = admin.get(f"/v1/jobs/{claim['id']}").json()
    assert (view["state"], view["epoch"], view["best"]) == ("SUCCEEDED", 0, {})
    assert (view["model"], view["version"]) == ("digits", 2)
    assert view["usage"]["cpu_seconds"] == 2
    assert admin.get("/v1/models/digits").json()["aliases"]["edge"] == 2
    assert admin.get(f"/v1/jobs/{claim['id']}/metrics").json()["items"] == []
    assert admin.get(f"/v1/jobs/{claim['id']}/profile").status_code == 404


def test_a_file_that_was_not_uploaded_or_has_another_size_is_refused(admin):
    code, detail = refusal(admin, ONNX)
    assert (code, detail) == ("not_found", f"onnx.file: artifact {DIGEST} has not been uploaded")
    admin.put(f"/v1/artifacts/{DIGEST}", content=FILE)
    code, detail = refusal(admin, ONNX | {"onnx": {"file": DIGEST, "size": 5}})
    assert code == "conflict"
    assert f"has {len(FILE)} bytes, not 5" in detail


def test_a_base_must_be_there_and_have_weights(platform, admin):
    assert refusal(admin, BASE)[0] == "not_found"
    platform.models.register("digits", platform.manifest(), None)
    code, detail = refusal(admin, BASE)
    assert code == "invalid"
    assert "digits@1 has no weights to go on from" in detail


def test_a_base_of_another_task_or_model_is_refused(admin, trained):
    code, detail = refusal(admin, BASE | {"task": "m:Other"})
    assert (code, detail) == ("invalid", "task: digits@1 is of the task m:T, not m:Other")
    code, detail = refusal(admin, BASE | {"name": "again"})
    assert code == "invalid"
    assert "would be registered as 'again', not as 'digits'" in detail
    named = BASE | {"name": "again", "model": "digits"}
    assert admin.post("/v1/jobs", json=named).status_code == 201
    on_purpose = BASE | {"name": "again", "model": "digits-small"}
    assert admin.post("/v1/jobs", json=on_purpose).status_code == 201


def test_a_base_that_was_taken_back_or_collected_is_refused(platform, admin, trained):
    with platform.uow() as tx:
        tx.models.set_purged("digits", 1)
    code, detail = refusal(admin, BASE)
    assert code == "conflict"
    assert "were collected" in detail
    revoked = admin.post("/v1/models/digits/versions/1/revoke", json={"reason": "it lies"})
    assert revoked.status_code == 200, revoked.text
    code, detail = refusal(admin, BASE)
    assert code == "revoked"
    assert "it lies" in detail


def test_a_base_taken_back_while_the_job_runs_is_not_read_any_more(
    platform,
    admin,
    worker,  # noqa: F811
    trained,
):
    claim, driver = start(platform, admin, worker, BASE)
    admin.post("/v1/models/digits/versions/1/revoke", json={"reason": "it lies"})
    assert driver.get(f"/v1/jobs/{claim['id']}/order").json()["code"] == "revoked"
    assert driver.get(f"/v1/artifacts/{trained.weights.sha256}").json()["code"] == "revoked"
