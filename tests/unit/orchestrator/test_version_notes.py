"""Notes and tags: replaced as a whole, bounded, and no part of what was signed."""

from __future__ import annotations

import json

import pytest

from schemas.model import MAX_TAGS

URL = "/v1/models/digits/versions/1"


@pytest.fixture
def one(platform, admin):
    platform.models.register("digits", platform.manifest(), None)
    return admin


def test_a_note_replaces_the_one_before(platform, one):
    signed = platform.models.manifest(platform.models.get("digits", 1).manifest_sha256)
    view = one.put(f"{URL}/note", json={"tags": ["night", "b"], "note": "good at 3s\nand 8s"})
    assert view.status_code == 200
    assert (view.json()["tags"], view.json()["note"]) == (["night", "b"], "good at 3s\nand 8s")
    assert one.get(URL).json() == view.json()
    cleared = one.put(f"{URL}/note", json={"note": "worse"}).json()
    assert (cleared["tags"], cleared["note"]) == ([], "worse")
    assert cleared["manifest_sha256"] == view.json()["manifest_sha256"]
    again = platform.models.manifest(cleared["manifest_sha256"])
    assert again == signed


def test_a_change_is_told_and_a_repeat_is_not(platform, one):
    for _ in range(3):
        one.put(f"{URL}/note", json={"tags": ["night"]})
    with platform.uow.read() as tx:
        data = [event.data for event in tx.events.after(0, "digits", 100)]
    noted = [d for d in data if d["change"] == "noted"]
    assert noted == [{"model": "digits", "version": 1, "change": "noted", "tags": ["night"]}]
    registered = [d for d in data if d["change"] == "registered"]
    assert registered == [
        {"model": "digits", "version": 1, "change": "registered", "aliases": ["champion"]}
    ]


def test_what_is_not_understood_changes_nothing(one):
    before = one.put(f"{URL}/note", json={"tags": ["kept"], "note": "kept"}).json()
    for body in (
        {"tag": ["night"]},
        {"tags": ["night", "night"]},
        {"tags": ["Night"]},
        {"tags": [f"t{n}" for n in range(MAX_TAGS + 1)]},
        {"tags": ["a" * 64]},
        {"tags": "night"},
        {"note": "x" * 10_001},
        {"note": "a\x00b"},
        {"note": None},
        [],
    ):
        answer = one.put(f"{URL}/note", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), body
    assert one.get(URL).json() == before


def test_what_is_no_json_is_refused(one):
    half = b'{"note": "\\ud800"}'
    for content in (half, b'{"note": NaN}', b"{", b"\xff"):
        assert one.put(f"{URL}/note", content=content).status_code == 422
    huge = one.put(f"{URL}/note", content=json.dumps({"note": "x" * (9 * 1024**2)}))
    assert huge.status_code == 413


def test_the_most_that_is_allowed_is_taken(one):
    body = {"tags": [f"t{n}" for n in range(MAX_TAGS)], "note": "€" * 10_000}
    assert one.put(f"{URL}/note", json=body).json()["note"] == body["note"]


def test_a_version_that_is_not_there_has_no_note(one):
    assert one.put("/v1/models/digits/versions/2/note", json={}).status_code == 404
    assert one.put("/v1/models/digits/versions/0/note", json={}).status_code == 422


def test_who_knows_the_version_as_it_is_gets_nothing_twice(one):
    first = one.get(URL)
    tag = first.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = one.get(URL, headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    one.put(f"{URL}/note", json={"note": "new"})
    changed = one.get(URL, headers={"if-none-match": tag})
    assert (changed.status_code, changed.json()["note"]) == (200, "new")
    assert changed.headers["etag"] != tag
    assert one.get(URL, headers={"if-none-match": "nonsense"}).status_code == 200
