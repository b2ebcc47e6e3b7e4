"""What a manifest must be to get a number: whole, at one with itself, safe to open."""

from __future__ import annotations

import pytest

from orchestrator.errors import Invalid
from schemas.budget import Budget
from schemas.measure import Accuracy, Benchmark
from schemas.model import ExportedFile, Manifest, RejectedVariant
from tests.fakes.tiny_onnx import tiny_onnx


def first(manifest, **more):
    """The manifest with its first variant changed."""
    changed = manifest.variants[0].model_copy(update=more)
    return manifest.model_copy(update={"variants": (changed, *manifest.variants[1:])})


def accuracy(**more):
    value = {"value": 0.5, "n": 10, "low": 0.2, "high": 0.8, "split": "test"}
    return Accuracy.model_validate({"set_sha256": "a" * 64, **value, **more})


def benchmark(**more):
    value = {"host": "h", "provider": "CPUExecutionProvider", "batch": 1, "runs": 9}
    times = {"p50_ms": 1, "p95_ms": 1, "p99_ms": 1, "load_ms": 1}
    return Benchmark.model_validate({**value, **times, **more})


def refuse(platform, manifest, words):
    with pytest.raises(Invalid, match=words) as caught:
        platform.models.register("digits", manifest, None)
    assert caught.value.fields
    with platform.uow.read() as tx:
        assert tx.models.versions("digits") == []


def test_outcomes_are_those_of_the_accuracy(platform):
    base = platform.manifest()

    def kept(data, **more):
        file = platform.file("outcomes.bin", data)
        return first(base, accuracy=(accuracy(outcomes=file, **more),))

    refuse(platform, kept(b"\xf8"), "10 outcomes need 2 bytes, not 1")
    refuse(platform, kept(b"\xf8\x00\x00"), "not 3")
    refuse(platform, kept(b"\xf8\x20"), "beyond the 10 samples")
    refuse(platform, kept(b"\xf0\x00"), "4 of 10 are right, which is not 0.5")
    refuse(platform, kept(b"\xf8\x00", value=0.51), "5 of 10")
    assert platform.models.register("digits", kept(b"\xf8\x00"), None).version == 1
    third = kept(b"\x49\x20\x00", n=18, value=0.2222)
    assert platform.models.register("digits", third, None).version == 2, "people round"


def test_figures_are_at_one_with_themselves(platform):
    base = platform.manifest()
    refuse(platform, first(base, accuracy=(accuracy(value=0.9),)), "not within its interval")
    refuse(platform, first(base, accuracy=(accuracy(), accuracy(n=11))), "accuracy on test")
    forged = first(base, benchmarks=(benchmark(device_class="edge"),))
    refuse(platform, forged, "figures of a device class")
    own = first(base, benchmarks=(benchmark(), benchmark(batch=32)))
    assert platform.models.register("digits", own, None).version == 1


def test_every_file_is_there(platform):
    base = platform.manifest()
    gone = platform.file("weights.pt", b"w").model_copy(update={"sha256": "f" * 64})
    export = ExportedFile(format="litert", file=gone, parity_max_abs=0, samples=1)
    for more in (
        {"weights": gone},
        {"exports": (export,)},
        {"variants": first(base, accuracy=(accuracy(outcomes=gone),)).variants},
    ):
        refuse(platform, base.model_copy(update=more), "has not been uploaded")


def test_names_are_names_of_one_thing(platform):
    base = platform.manifest()
    file = platform.file("int8.onnx", b"another")
    refuse(platform, base.model_copy(update={"weights": file}), "same path: int8.onnx")
    export = ExportedFile(format="litert", file=file, parity_max_abs=0, samples=1)
    refuse(platform, base.model_copy(update={"exports": (export, export)}), "ids repeat: litert")
    inputs = base.signature.model_copy(update={"inputs": base.signature.inputs * 2})
    refuse(platform, base.model_copy(update={"signature": inputs}), "signature.inputs")


def test_a_parent_is_a_version_that_is_here(platform):
    base = platform.manifest()

    def of(parent):
        lineage = base.lineage.model_copy(update={"parent": parent})
        return base.model_copy(update={"lineage": lineage})

    refuse(platform, of("digits@1"), "there is no digits@1")
    refuse(platform, of("digits@9999999999"), "there is no digits@9999999999")
    platform.models.register("digits", base, None)
    assert platform.models.register("digits", of("digits@1"), None).version == 2


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no model at all", "not a well-formed ONNX file"),
        (b"PK\x03\x04" + b"0" * 50, "zip archive"),
        (tiny_onnx(b"x", b"ReadFile"), "ReadFile"),
        (tiny_onnx(b"x")[:-20], "it ends early"),
    ],
)
def test_a_model_that_is_not_safe_to_open_is_refused(platform, admin, data, words):
    manifest = first(platform.manifest(), file=platform.file("evil.onnx", data))
    refuse(platform, manifest, words)
    body = manifest.model_dump(mode="json")
    answer = admin.post("/v1/models/digits/versions", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "file evil.onnx"


def test_many_faults_are_told_up_to_a_limit(platform):
    base = platform.manifest()
    file = base.variants[0].file
    variants = [
        base.variants[0].model_copy(
            update={"id": f"v{n}", "file": file.model_copy(update={"size": n + 1})}
        )
        for n in range(60)
    ]
    with pytest.raises(Invalid) as caught:
        platform.models.register("digits", base.model_copy(update={"variants": variants}), None)
    assert len(caught.value.fields) == 50


def test_a_full_manifest_is_kept_as_it_came(platform, admin):
    data = b"\xf8\x00"
    one = accuracy(outcomes=platform.file("outcomes.bin", data))
    export = platform.file("digits.tflite", b"litert")
    manifest = first(platform.manifest(), accuracy=(one,), benchmarks=(benchmark(),)).model_copy(
        update={
            "budgets": {"edge": Budget(max_size_mb=0.1), "server": Budget()},
            "weights": platform.file("weights.pt", b"state"),
            "exports": (ExportedFile(format="litert", file=export, parity_max_abs=0, samples=1),),
            "rejected": (RejectedVariant(id="p75-int8", reason="loses 3 points"),),
        }
    )
    body = manifest.model_dump(mode="json")
    assert admin.post("/v1/models/digits/versions", json=body).status_code == 201
    view = admin.get("/v1/models/digits/versions/1").json()
    assert Manifest.model_validate(view["manifest"]) == manifest
    with platform.uow.read() as tx:
        (held,) = tx.holdings.all().versions
    assert held.files == {file.sha256 for file in manifest.files()}


def test_a_version_without_files_is_whole_again_when_they_come_again(platform, admin):
    manifest = platform.manifest()
    platform.models.register("digits", manifest, None)
    digest = platform.models.get("digits", 1).manifest_sha256
    with platform.uow() as tx:
        tx.models.set_purged("digits", 1)
    assert platform.models.manifest(digest) is None
    again = platform.models.register("digits", manifest, None)
    assert (again.version, again.created) == (1, False)
    assert platform.models.get("digits", 1).purged is False
    assert platform.models.manifest(digest) is not None
