"""Device classes through the API, and their budgets in the orders of jobs."""

from __future__ import annotations

import pytest

from orchestrator.services.orders import MAX_CLASSES
from schemas.access import Role
from schemas.budget import Budget, DeviceClassView
from schemas.job import JobOrder

URL = "/v1/device-classes"
JOB = {"name": "digits", "task": "m:T", "stop": {"target": 0.9}}


def put(admin, name, **limits):
    answer = admin.put(f"{URL}/{name}", json={"budget": limits, "note": "n"})
    assert answer.status_code == 200, answer.text
    return DeviceClassView.model_validate(answer.json())


def order(platform, admin, job):
    assert admin.post("/v1/jobs", json=job).status_code == 201
    worker = platform.client(platform.key(Role.WORKER))
    claim = worker.post("/v1/worker/claim", json={"agent": "a"}).json()
    driver = platform.client(claim["job_token"])
    return JobOrder.model_validate(driver.get(f"/v1/jobs/{claim['id']}/order").json())


def test_a_class_is_set_read_listed_and_forgotten(platform, admin):
    view = put(admin, "cam", max_size_mb=0.1)
    assert (view.name, view.spec.budget, view.devices) == ("cam", Budget(max_size_mb=0.1), 0)
    assert view.updated_at == platform.clock()
    platform.clock.forward(5)
    assert put(admin, "cam", max_size_mb=0.1) == view
    assert put(admin, "cam", max_size_mb=0.2).updated_at == platform.clock()
    platform.enroll(2, "pi")
    names = [(one["name"], one["devices"]) for one in admin.get(URL).json()["items"]]
    assert names == [("cam", 0), ("pi", 2)]
    first = admin.get(URL, params={"limit": 1}).json()
    assert [one["name"] for one in first["items"]] == ["cam"]
    rest = admin.get(URL, params={"limit": 1, "cursor": first["next"]}).json()["items"]
    assert [one["name"] for one in rest] == ["pi"]
    implicit = admin.get(f"{URL}/pi").json()
    assert (implicit["devices"], implicit["updated_at"]) == (2, None)
    assert admin.delete(f"{URL}/cam").json()["spec"]["budget"]["max_size_mb"] == 0.2
    assert admin.get(f"{URL}/cam").json()["code"] == "not_found"
    assert admin.delete(f"{URL}/cam").status_code == 404


def test_a_class_with_devices_keeps_its_budget_until_it_is_lifted(platform, admin):
    put(admin, "cam", max_size_mb=0.1)
    platform.enroll(1, "cam")
    problem = admin.delete(f"{URL}/cam").json()
    assert (problem["status"], problem["code"]) == (409, "conflict")
    assert "1 device is in class cam" in problem["detail"]
    assert "without limits" in problem["hint"]
    assert put(admin, "cam").spec.budget == Budget()


@pytest.mark.parametrize(
    "body",
    [
        {"budget": {"max_size_mb": 0}},
        {"budget": {"max_size": 1}},
        {"note": "x" * 2001},
        {"note": "a\x00b"},
    ],
)
def test_what_is_no_budget_is_refused(admin, body):
    assert admin.put(f"{URL}/cam", json=body).status_code == 422
    assert admin.get(URL).json()["items"] == []


def test_a_name_that_is_none_and_a_key_that_may_not_are_refused(platform, admin):
    assert admin.put(f"{URL}/Not_a_name", json={}).status_code == 422
    worker = platform.client(platform.key(Role.WORKER))
    assert worker.get(URL).status_code == 403
    assert platform.client().get(URL).status_code == 401


def test_an_order_carries_the_platforms_budgets_of_classes_it_does_not_name(platform, admin):
    put(admin, "cam", max_size_mb=0.1)
    put(admin, "pi", max_latency_ms=20)
    put(admin, "free")
    own = {"optimize": {"classes": {"pi": {"max_size_mb": 3}}}}
    made = order(platform, admin, JOB | own)
    assert made.spec.optimize.classes == {
        "pi": Budget(max_size_mb=3),
        "cam": Budget(max_size_mb=0.1),
    }
    # What the person wrote stays what they wrote.
    assert admin.get(f"/v1/jobs/{made.id}").json()["spec"]["optimize"]["classes"].keys() == {"pi"}


def test_of_too_many_classes_those_with_devices_go_into_an_order(platform, admin):
    for i in range(MAX_CLASSES + 5):
        put(admin, f"c{i:02d}", max_size_mb=1)
    platform.enroll(1, "c36")
    own = {"optimize": {"classes": {"mine": {"max_size_mb": 3}}}}
    classes = order(platform, admin, JOB | own).spec.optimize.classes
    assert len(classes) == MAX_CLASSES
    assert {"mine", "c36", "c00"} <= classes.keys()
