"""Selectors, fleets and tags through the API."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator.domain.acts import Act
from orchestrator.services.ports import AuditQuery
from schemas.access import Role
from schemas.rollout import RolloutSpec

URL = "/v1/fleets"


def put(admin, name, selector, **more):
    return admin.put(f"{URL}/{name}", json={"selector": selector, **more})


def actions(platform):
    with platform.uow.read() as tx:
        return [(one.action, one.subject) for one in tx.audit.entries(AuditQuery(limit=100))]


def tag(admin, device, *tags):
    return admin.put(f"/v1/devices/{device}/tags", json={"tags": list(tags)})


def test_a_fleet_counts_its_members_and_follows_its_selector(platform, admin):
    cams, pis = platform.enroll(3, "cam"), platform.enroll(2, "pi")
    platform.birth(cams[0])
    made = put(admin, "lab", "class = cam", note="n")
    assert made.status_code == 200
    assert made.json()["devices"] == 3
    shares = [(one["presence"], one["devices"]) for one in made.json()["members"]]
    assert sorted(shares) == [("NEVER", 2), ("ONLINE", 1)]
    before = made.json()["updated_at"]
    platform.clock.forward(5)
    assert put(admin, "lab", "class = cam", note="n").json()["updated_at"] == before
    assert put(admin, "lab", f"id in ({pis[0]})").json()["devices"] == 1
    assert admin.get(f"{URL}/lab").json()["created_at"] == made.json()["created_at"]
    put(admin, "all", "*")
    listed = admin.get(URL, params={"limit": 1}).json()
    assert [one["name"] for one in listed["items"]] == ["all"]
    rest = admin.get(URL, params={"cursor": listed["next"]}).json()["items"]
    assert [(one["name"], one["devices"]) for one in rest] == [("lab", None)]
    assert actions(platform).count(("fleet.set", "lab")) == 2


def test_a_fleet_that_a_rollout_names_stays_until_the_rollout_is_over(platform, admin):
    platform.models.register("digits", platform.manifest(), None)
    platform.enroll(2, "cam")
    put(admin, "lab", "class = cam")
    plan = platform.rollouts.plan(RolloutSpec(model="digits", version=1, fleet="lab"))
    assert sum(wave.size for wave in plan.waves) == 2
    assert admin.get(f"{URL}/lab").json()["rollouts"] == [plan.id]
    refused = admin.delete(f"{URL}/lab")
    assert refused.status_code == 409
    assert plan.id in refused.json()["detail"]
    assert put(admin, "lab", "class = pi").status_code == 200
    assert sum(w.size for w in platform.rollouts.get(plan.id).waves) == 2  # it is frozen
    platform.rollouts.operate(plan.id, Act.ABORT)
    assert admin.delete(f"{URL}/lab").json()["name"] == "lab"
    assert admin.delete(f"{URL}/lab").status_code == 404
    assert ("fleet.delete", "lab") in actions(platform)


@pytest.mark.parametrize(
    ("url", "method", "body"),
    [
        ("/v1/devices?where=tga+%3D+lab", "GET", None),
        ("/v1/fleets/lab", "PUT", {"selector": "tga = lab"}),
        ("/v1/fleets/lab", "PUT", {"selector": " "}),
        ("/v1/fleets/lab", "PUT", {"selector": "tag = 'a" + "\x00" + "'"}),
        ("/v1/fleets/lab", "PUT", {"selector": "(" * 2000}),
        ("/v1/fleets/lab", "PUT", {"selector": "*" * 2001}),
        ("/v1/fleets/lab", "PUT", {"selector": "*", "more": 1}),
    ],
)
def test_what_is_no_selector_is_refused_with_a_reason(admin, url, method, body):
    answer = admin.request(method, url, json=body)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["code"] == "invalid"
    assert problem["errors"] or problem["detail"]


def test_the_refusal_of_a_selector_says_where_and_what_was_meant(admin):
    problem = admin.get("/v1/devices", params={"where": "tga = lab"}).json()
    said = str(problem)
    assert "at 1: found 'tga'" in said
    assert "did you mean tag?" in said


def test_devices_are_listed_by_selector_with_a_cursor(platform, admin):
    cams = platform.enroll(3, "cam")
    platform.enroll(2, "pi")
    first = admin.get("/v1/devices", params={"where": "class = cam", "limit": 2}).json()
    assert len(first["items"]) == 2
    more = {"where": "class = cam", "limit": 2, "cursor": first["next"]}
    rest = admin.get("/v1/devices", params=more).json()["items"]
    assert {one["id"] for one in (*first["items"], *rest)} == set(cams)


def test_tags_are_replaced_and_fleets_follow(platform, admin):
    (device,) = platform.enroll(1, "cam")
    put(admin, "lab", "tag = lab and not tag = old")
    assert tag(admin, device, "lab", "hall", "lab").json()["tags"] == ["lab", "hall"]
    assert admin.get(f"{URL}/lab").json()["devices"] == 1
    tag(admin, device, "lab", "hall")
    assert tag(admin, device, "old", "lab").status_code == 200
    assert admin.get(f"{URL}/lab").json()["devices"] == 0
    assert actions(platform).count(("device.tag", device)) == 2
    assert tag(admin, device, *(f"t{n}" for n in range(17))).status_code == 422
    assert tag(admin, device, "UPPER").status_code == 422
    assert tag(admin, "dev_0000000000000000", "lab").status_code == 404
    viewer = platform.client(platform.key(Role.VIEWER))
    assert tag(viewer, device, "x").status_code == 403


def test_tags_of_its_token_are_found_too(platform, admin):
    made = admin.post("/v1/tokens", json={"tags": ["roof"]}).json()
    device = platform.join(made["token"]).device
    found = admin.get("/v1/devices", params={"where": "tag = roof"}).json()["items"]
    assert [one["id"] for one in found] == [device]


def retag(admin, device, add=(), remove=()):
    return admin.patch(
        f"/v1/devices/{device}/tags", json={"add": list(add), "remove": list(remove)}
    )


def retag_all(admin, where, **change):
    return admin.patch("/v1/devices/tags", json={"where": where, **change})


def test_two_who_change_tags_at_once_lose_nothing(platform, admin):
    (device,) = platform.enroll(1, "cam")
    tag(admin, device, "lab", "old")
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda n: retag(admin, device, [f"t{n}"], ["old"]), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    tags = admin.get(f"/v1/devices/{device}").json()["tags"]
    assert (tags[0], sorted(tags)) == ("lab", ["lab", *(f"t{n}" for n in range(8))])
    assert retag(admin, device, ["t1"], ["never"]).json()["tags"] == tags
    assert actions(platform).count(("device.tag", device)) == 9  # what changed nothing is not told


def test_a_change_that_cannot_be_is_refused(platform, admin):
    (device,) = platform.enroll(1, "cam")
    tag(admin, device, *(f"t{n}" for n in range(16)))
    full = retag(admin, device, ["more"])
    assert full.status_code == 422
    assert "would have 17 tags, and may have 16" in full.json()["detail"]
    assert retag(admin, device, ["more"], ["t0"]).status_code == 200
    assert retag(admin, device).status_code == 422
    assert retag(admin, device, ["a"], ["a"]).status_code == 422
    assert retag(admin, "dev_0000000000000000", ["a"]).status_code == 404
    viewer = platform.client(platform.key(Role.VIEWER))
    assert retag(viewer, device, ["x"]).status_code == 403
    assert retag_all(viewer, "*", add=["x"]).status_code == 403
    assert retag_all(admin, "tga = x", add=["x"]).status_code == 422
    assert retag_all(admin, "*").status_code == 422


def test_the_audit_log_has_all_of_a_long_selector(platform, admin):
    where = f"id in ({', '.join(platform.enroll(12, 'cam'))})"
    assert retag_all(admin, where, add=["lab"]).json()["changed"] == 12
    with platform.uow.read() as tx:
        told = list(tx.audit.entries(AuditQuery(limit=100)))[-1].detail
    assert "".join(told["where"]) == where


def test_tags_of_many_change_as_one_act(platform, admin):
    cams, pis = platform.enroll(3, "cam"), platform.enroll(1, "pi")
    tag(admin, cams[0], "lab")
    before = len(actions(platform))
    looked = retag_all(admin, "class = cam", add=["lab"], dry_run=True).json()
    assert looked == {"matched": 3, "changed": 2, "dry_run": True}
    more = retag_all(admin, "class = cam", add=["lab"], at_most=1)
    assert (more.status_code, len(actions(platform))) == (409, before)
    assert retag_all(admin, "class = cam", add=["lab"], at_most=2).json()["changed"] == 2
    assert retag_all(admin, "class = cam", add=["lab"]).json()["changed"] == 0
    assert actions(platform)[before:] == [("device.tag_many", "class = cam")]
    with platform.uow.read() as tx:
        told = list(tx.audit.entries(AuditQuery(limit=100)))[-1].detail
    assert told == {"add": ["lab"], "remove": [], "matched": 3, "changed": 2}
    tagged = admin.get("/v1/devices", params={"where": "tag = lab"}).json()["items"]
    assert {one["id"] for one in tagged} == set(cams)
    tag(admin, pis[0], *(f"t{n}" for n in range(16)))
    full = retag_all(admin, "*", add=["roof"])
    assert (full.status_code, "1 device would" in full.json()["detail"]) == (422, True)
    assert not admin.get("/v1/devices", params={"where": "tag = roof"}).json()["items"]
