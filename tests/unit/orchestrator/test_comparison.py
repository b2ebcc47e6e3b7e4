"""Two versions side by side: paired where they saw the same samples, else said why not."""

from __future__ import annotations

import pytest

from orchestrator.services import outcomes
from schemas.measure import Accuracy
from schemas.paired import paired

URL = "/v1/models/digits/compare"
N = 100


def bits(wrong, n=N):
    """Outcomes of n samples of which those are wrong."""
    value = sum(1 << (8 * ((n + 7) // 8) - 1 - i) for i in range(n) if i not in wrong)
    return value.to_bytes((n + 7) // 8)


def accuracy(platform, wrong, **more):
    n = more.get("n", N)
    data = bits(wrong, n)
    value = {
        "value": (n - len(wrong)) / n,
        "n": n,
        "low": 0.0,
        "high": 1.0,
        "split": "test",
        "set_sha256": "a" * 64,
        "outcomes": platform.file(f"outcomes-{data[:20].hex()}.bin", data),
    }
    return Accuracy.model_validate(value | more)


@pytest.fixture
def register(platform):
    def go(content, *measured):
        """A version; measured: the accuracies of each variant."""
        manifest = platform.manifest(content=content)
        variants = [
            variant.model_copy(update={"accuracy": tuple(of)})
            for variant, of in zip(manifest.variants, measured, strict=True)
        ]
        manifest = manifest.model_copy(update={"variants": tuple(variants)})
        return platform.models.register("digits", manifest, None).version

    return go


def compare(client, a=1, b=2, **more):
    answer = client.get(URL, params={"a": a, "b": b, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_versions_are_paired_on_the_same_samples(platform, admin, register):
    old, new = accuracy(platform, {0, 1, 2, 3}), accuracy(platform, {3, 99})
    register(b"1", [old], [])
    register(b"2", [new], [])
    got = compare(admin)
    assert got["paired"] == paired(N, 1, 3, 0.975).model_dump(mode="json")
    assert got["paired"]["drop"] == pytest.approx(-0.02)
    assert (got["unpaired"], got["split"]) == (None, "test")
    assert [got[s]["variant"]["id"] for s in "ab"] == ["int8", "int8"]
    assert [got[s]["version"] for s in "ab"] == [1, 2]
    back = compare(admin, 2, 1)
    assert (back["paired"]["lost"], back["paired"]["won"]) == (3, 1)
    itself = compare(admin, 1, 1)
    assert (itself["paired"]["lost"], itself["paired"]["won"]) == (0, 0)


def test_variants_and_splits_can_be_named(platform, admin, register):
    seen = accuracy(platform, {1}, split="validation")
    register(b"1", [accuracy(platform, {0})], [accuracy(platform, set()), seen])
    register(b"2", [accuracy(platform, {2}, split="validation")], [])
    got = compare(admin, variant_a="fp32", split="validation")
    assert got["a"]["variant"]["id"] == "fp32"
    assert (got["paired"]["lost"], got["paired"]["won"]) == (1, 1)
    answer = admin.get(URL, params={"a": 1, "b": 2, "variant_b": "fp16"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "variant_b"
    assert "it has int8, fp32" in answer.json()["detail"]


def test_why_there_is_no_pair_is_said(platform, admin, register):
    register(b"1", [accuracy(platform, {0})], [])
    register(b"2", [accuracy(platform, {0}, set_sha256="b" * 64)], [])
    register(b"3", [accuracy(platform, {0}, outcomes=None)], [])
    register(b"4", [accuracy(platform, {0}, split="validation")], [])
    register(b"5", [], [])
    register(b"6", [accuracy(platform, {0}, n=N + 1)], [])
    said = {b: compare(admin, b=b)["unpaired"] for b in range(2, 7)}
    assert "different samples: set aaaaaaaaaaaa (100) and set bbbbbbbbbbbb (100)" in said[2]
    assert "digits@3 int8" in said[3]
    assert "no outcomes were kept" in said[3]
    assert (
        said[4] == "digits@4 int8 has no accuracy on the test split; it was measured on validation"
    )
    assert said[5].endswith("measured on no split")
    assert "100 and 101 samples cannot be paired" in said[6]


def test_what_is_left_of_a_purged_or_revoked_version_is_compared(platform, admin, register):
    register(b"1", [accuracy(platform, {0})], [])
    register(b"2", [accuracy(platform, {1})], [])
    admin.post("/v1/models/digits/versions/1/revoke", json={"reason": "x"})
    assert compare(admin)["paired"]["n"] == N
    with platform.uow() as tx:
        tx.models.set_purged("digits", 2)
    got = compare(admin)
    assert (got["paired"], got["unpaired"]) == (None, "the files of digits@2 were collected")
    assert got["b"]["variant"]["accuracy"][0]["value"] == 0.99


def test_files_that_were_lost_or_are_too_large_are_no_crash(platform, admin, register, monkeypatch):
    first = accuracy(platform, {0})
    register(b"1", [first], [])
    register(b"2", [accuracy(platform, {1})], [])
    monkeypatch.setattr(outcomes, "MAX_BYTES", 1)
    assert "13 bytes" in compare(admin)["unpaired"]
    monkeypatch.undo()
    platform.artifacts.path(first.outcomes.sha256).unlink()
    monkeypatch.setattr(platform.artifacts, "_open", type(platform.artifacts._open)())
    assert "there is no artifact" in compare(admin)["unpaired"]


def test_what_cannot_be_compared_is_refused(admin, register):
    register(b"1", [], [])
    for params, status in (
        ({"a": 1, "b": 2}, 404),
        ({"a": 1}, 422),
        ({"a": 0, "b": 1}, 422),
        ({"a": 1, "b": "x"}, 422),
        ({"a": 1, "b": 1, "split": ""}, 422),
        ({"a": 1, "b": 1, "split": "x" * 51}, 422),
        ({"a": 1, "b": 1, "variant_a": "A"}, 422),
    ):
        assert admin.get(URL, params=params).status_code == status, params
