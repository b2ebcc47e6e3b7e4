"""The registry: numbers, immutability, and refusing what is not whole."""

from __future__ import annotations

import hashlib

import pytest

from orchestrator.errors import Invalid, NotFound
from schemas.model import Manifest
from schemas.transfer import Ask, decode_chunk, leaves_digest


def test_versions_count_up_and_the_same_manifest_keeps_its_number(platform, admin):
    first, second = platform.manifest(), platform.manifest(content=b"other")
    body = first.model_dump(mode="json")
    assert admin.post("/v1/models/digits/versions", json=body).status_code == 201
    again = admin.post("/v1/models/digits/versions", json=body)
    assert (again.status_code, again.json()["version"]) == (200, 1)
    assert platform.models.register("digits", second, None).version == 2
    assert admin.get("/v1/models/digits").json()["versions"] == [2, 1]
    view = admin.get("/v1/models/digits/versions/1").json()
    assert Manifest.model_validate(view["manifest"]) == first
    assert view["aliases"] == ["champion"]


def test_a_manifest_is_served_byte_for_byte(platform):
    platform.models.register("digits", platform.manifest(), None)
    digest = platform.models.get("digits", 1).manifest_sha256
    reply = platform.transfer.reply("dev_a", Ask(kind="manifest", sha256=digest))
    assert hashlib.sha256(reply.manifest.encode()).hexdigest() == digest


def test_a_file_is_served_in_chunks_that_match_its_leaves(platform):
    data = bytes(range(256)) * 600
    file = platform.file("x.npz", data)
    platform.models.register("digits", with_golden(platform.manifest(), file), None)
    reply = platform.transfer.reply("dev_a", Ask(kind="leaves", sha256=file.sha256))
    leaves = [bytes.fromhex(reply.leaves)[i : i + 32] for i in range(0, 96, 32)]
    assert leaves_digest(leaves) == file.leaves_sha256
    service = platform.chunks
    assert service.refusal(file.sha256, 3) is None
    chunks = [decode_chunk(bytes(service.message(file.sha256, 7, i))) for i in (1, 2, 0)]
    assert [(c.batch, c.index) for c in chunks] == [(7, 1), (7, 2), (7, 0)]
    assert b"".join(c.data for c in sorted(chunks, key=lambda c: c.index)) == data


@pytest.mark.parametrize("kind", ["manifest", "leaves"])
def test_what_is_not_there_is_said(platform, kind):
    assert platform.transfer.reply("dev_a", Ask(kind=kind, sha256="0" * 64)).error


def test_chunks_beyond_the_end_are_refused(platform):
    file = platform.file("x.npz", b"small")
    platform.models.register("digits", with_golden(platform.manifest(), file), None)
    assert "1 chunks" in platform.chunks.refusal(file.sha256, 2)


def missing(manifest):
    gone = manifest.variants[0].file.model_copy(update={"sha256": "f" * 64})
    return with_file(manifest, gone)


def resized(manifest):
    return with_file(manifest, manifest.variants[0].file.model_copy(update={"size": 3}))


def wrong_leaves(manifest):
    wrong = manifest.variants[0].file.model_copy(update={"leaves_sha256": "f" * 64})
    return with_file(manifest, wrong)


def twice(manifest):
    return manifest.model_copy(update={"variants": (manifest.variants[0],) * 2})


def with_file(manifest, file):
    variant = manifest.variants[0].model_copy(update={"file": file})
    return manifest.model_copy(update={"variants": (variant, *manifest.variants[1:])})


def with_golden(manifest, file):
    first = manifest.variants[0]
    golden = first.golden.model_copy(update={"file": file})
    first = first.model_copy(update={"golden": golden})
    return manifest.model_copy(update={"variants": (first, *manifest.variants[1:])})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (missing, "has not been uploaded"),
        (resized, "bytes, not 3"),
        (wrong_leaves, "leaves_sha256"),
        (twice, "ids repeat"),
    ],
)
def test_a_manifest_that_is_not_whole_is_refused(platform, damage, words):
    with pytest.raises(Invalid, match=words):
        platform.models.register("digits", damage(platform.manifest()), None)
    with pytest.raises(NotFound):
        platform.models.model("digits")


def test_a_manifest_of_another_model_is_refused(platform):
    with pytest.raises(Invalid, match="registered as 'other'"):
        platform.models.register("other", platform.manifest(), None)


def test_an_unknown_version_names_those_there_are(platform, admin):
    platform.models.register("digits", platform.manifest(), None)
    answer = admin.get("/v1/models/digits/versions/9")
    assert "digits@1" in answer.json()["detail"]


def test_artifacts_come_back_as_they_went(admin):
    data = b"bytes" * 50_000
    digest = hashlib.sha256(data).hexdigest()
    assert admin.put(f"/v1/artifacts/{digest}", content=data).json()["created"] is True
    assert admin.put(f"/v1/artifacts/{digest}", content=data).json()["created"] is False
    assert admin.get(f"/v1/artifacts/{digest}").content == data


def test_a_corrupted_upload_leaves_nothing(platform, admin):
    digest = hashlib.sha256(b"right").hexdigest()
    answer = admin.put(f"/v1/artifacts/{digest}", content=b"wrong")
    assert answer.json()["code"] == "digest_mismatch"
    assert not platform.artifacts.exists(digest)
    assert admin.put("/v1/artifacts/not-a-digest", content=b"").status_code == 422
    huge = admin.put(f"/v1/artifacts/{digest}", content=b"x" * (10 * 1024**2 + 1))
    assert huge.status_code == 413
