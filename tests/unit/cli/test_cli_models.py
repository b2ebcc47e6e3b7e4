"""The registry on a terminal: what stands there, word by word."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from argosy_fake_platform import NOW, State, variant, version_view

from orchestrator.cli import console
from orchestrator.cli.model_text import paired_sentence
from schemas.budget import Budget
from schemas.device import ActiveModel, DeviceView
from schemas.ids import new_id
from schemas.measure import MeasuredVariant
from schemas.model import (
    AliasChange,
    CollectReport,
    Lineage,
    ModelVersionView,
    Pass,
    RejectedVariant,
    Requires,
)
from schemas.paired import paired


@pytest.fixture(autouse=True)
def _at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    later = NOW + timedelta(hours=2)
    real = console.age
    monkeypatch.setattr(console, "age", lambda at, now=None: real(at, now or later))


def measured(name: str, of: str, p50: float, devices: int = 3) -> MeasuredVariant:
    return MeasuredVariant(
        variant=of, device_class=name, devices=devices, p50_ms=p50, p95_ms=p50 * 2, load_ms=9,
        millijoules=1.5, rss_growth_mb=8, at=NOW,
    )  # fmt: skip


@pytest.fixture
def version(fake: State) -> ModelVersionView:
    fp32 = variant(fake)
    fast = fp32.benchmarks[0].model_copy(update={"p50_ms": 0.2})
    int8 = variant(
        fake, "int8-vnni", precision="int8", scheme="u8s8", compressed_bytes=3200,
        paired=paired(401, 4, 2), benchmarks=(fast,),
        requires=Requires(arch=("x86_64",), isa=("vnni",), ram_mb=64, ort="1.20"),
    )  # fmt: skip
    half = variant(fake, "p50-fp32", pruned=0.5, front=False, accuracy=(), benchmarks=())
    steps = (
        Pass(
            name="prune", parameters={"share": 0.5}, input_sha256="a" * 64,
            output_sha256="b" * 64,
        ),
        Pass(
            name="quantize", parameters={"scheme": "u8s8", "samples": 256},
            input_sha256="b" * 64, output_sha256="c" * 64, variant="int8-vnni",
        ),
    )  # fmt: skip
    lineage = Lineage(
        job="job_0000000000000001", task="task:Digits", code_sha256="d" * 64, seed=7, epochs=12,
        dataset_sha256="e" * 64, parent="digits@2", passes=steps,
    )  # fmt: skip
    return version_view(
        fake, 3, variants=(int8, fp32, half), lineage=lineage,
        rejected=(RejectedVariant(id="p75-int8", reason="drops 6.1 points \x1b[31mof 2.0"),),
        aliases=("champion",), tags=("gold", "eu"), note="first with VNNI",
        measured=(measured("cam", "fp32", 5.0), measured("gate", "int8-vnni", 0.9, 1)),
    )  # fmt: skip


SHOWN = Path(__file__).with_name("snapshots") / "model_get.txt"


def test_a_version_as_it_is_shown(argosy: Any, version: ModelVersionView) -> None:
    answer = argosy("model", "get", "digits@champion")
    at = f"{NOW.astimezone():%Y-%m-%d %H:%M:%S}"
    assert answer.code == 0
    assert answer.out == SHOWN.read_text().format(at=at, sha=version.manifest_sha256)
    legend = (
        "● is offered first to a device that can run it; ○ has something that no other is better"
        " at; accuracy on test, n=401; drop in points against FP32, in pairs on validation; P50 of"
        " single runs on a laptop\n"
    )
    assert answer.err == legend


def test_passes_are_shown_when_asked_for(argosy: Any, version: ModelVersionView) -> None:
    lines = argosy("model", "get", "digits", "--passes").out.splitlines()
    assert [line.split() for line in lines[-3:]] == [
        ["PASS", "VARIANT", "FROM", "TO", "PARAMETERS"],
        ["prune", "-", "a" * 12, "b" * 12, "share=0.5"],
        ["quantize", "int8-vnni", "b" * 12, "c" * 12, "scheme=u8s8", "samples=256"],
    ]


def test_json_of_a_version_is_the_schema(argosy: Any, version: ModelVersionView) -> None:
    answer = argosy("model", "get", "digits@3", "-o", "json")
    assert ModelVersionView.model_validate_json(answer.out) == version
    assert answer.err == ""


def test_a_version_without_any_figure(argosy: Any, fake: State) -> None:
    version_view(fake, 1, variants=(variant(fake, accuracy=(), benchmarks=()),), purged=True)
    answer = argosy("model", "get", "digits@1")
    assert answer.code == 0
    assert "state       PURGED" in answer.out
    assert answer.out.splitlines()[-2].split() == ["VARIANT", "PRECISION", "SIZE"]


def test_two_versions_side_by_side(argosy: Any, fake: State, version: ModelVersionView) -> None:
    other = variant(fake, "int8", precision="int8", scheme="u8s8-7bit")
    version_view(fake, 4, variants=(other,), lineage=Lineage(seed=8, epochs=12))
    fake.paired = paired(401, 5, 3)
    answer = argosy(
        "model", "compare", "digits@3", "digits@4", "--variant", "fp32", "--variant", "int8"
    )
    table, words = answer.out.split("\n\n")
    assert [" ".join(line.split()) for line in table.splitlines()] == [
        "digits@3 fp32 digits@4 int8",
        "precision fp32 int8 u8s8-7bit",
        "P50 on cam 5.00 ms -",
        "job job_0000000000000001 -",
        "parent digits@2 -",
        "task task:Digits -",
        "code dddddddddddd -",
        "data eeeeeeeeeeee -",
        "seed 7 8",
        "tags gold, eu -",
    ]
    assert words == (
        "digits@4 int8 is 0.5 points worse than digits@3 fp32 on test (90 %: -0.8 to 1.9), n=401:"
        " it may be chance\n"
    )


@pytest.mark.parametrize(
    ("lost", "won", "words"),
    [
        (40, 3, "B is 9.2 points worse than A on t (95 %: 6.4 to 12.6), n=401: more than chance"),
        (3, 40, "B is 9.2 points better than A on t (95 %: 6.4 to 12.6), n=401: more than chance"),
        (
            0,
            0,
            "B is as accurate as A on t (95 %: -0.9 to 0.9), n=401: right and wrong on the same",
        ),
        (4, 4, "B is as accurate as A on t (95 %: -1.7 to 1.7), n=401: it may be chance"),
    ],
)
def test_the_paired_figure_in_words(lost: int, won: int, words: str) -> None:
    assert paired_sentence("A", "B", paired(401, lost, won, 0.975), "t").startswith(words)


def test_what_cannot_be_paired_says_why(argosy: Any, fake: State) -> None:
    version_view(fake, 1)
    version_view(fake, 2)
    answer = argosy("model", "compare", "digits@1", "digits@2")
    assert "not compared in pairs: b was not measured on that set" in answer.out
    assert "the same in all else" in answer.err
    assert argosy("model", "compare", "digits@1", "wine@2").code == 2
    assert argosy("model", "compare", "digits@1", "digits@2", "--variant", "none").code == 5
    found = json.loads(argosy("model", "compare", "digits@1", "digits@2", "-o", "json").out)
    assert found["unpaired"]


def test_aliases(argosy: Any, fake: State) -> None:
    version_view(fake, 1)
    version_view(fake, 2)
    answer = argosy("model", "alias", "set", "digits@1", "stable", "--expected", "champion")
    assert answer.code == 6
    answer = argosy("model", "alias", "set", "digits@champion", "stable")
    assert (answer.code, answer.err) == (
        0,
        "stable is digits@2; aliases now: champion=2, stable=2\n",
    )
    answer = argosy("model", "alias", "rm", "digits", "champion", "-o", "json")
    assert json.loads(answer.out)["aliases"] == {"stable": 2}
    assert argosy("model", "alias", "rm", "digits", "nothing").code == 5
    assert argosy("model", "alias", "rm", "digits@1", "champion").code == 2
    wrong = argosy("model", "alias", "set", "digits@1", "Not/One")
    assert wrong.code == 2
    assert "ALIAS" in wrong.err


def test_an_aliass_history(argosy: Any, fake: State) -> None:
    fake.history = [
        AliasChange(alias="champion", version=None, before=2, by="key_x", at=NOW),
        AliasChange(alias="champion", version=2, by="job_y", at=NOW),
    ]
    rows = argosy("model", "alias", "history", "digits", "champion").out.splitlines()
    assert [row.split()[2:] for row in rows[1:]] == [
        ["digits@2", "-", "key_x"],
        ["-", "digits@2", "job_y"],
    ]
    assert "never had" in argosy("model", "alias", "history", "digits", "other").err


def test_tags_and_notes_keep_each_other(
    argosy: Any, fake: State, version: ModelVersionView, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "tags gold, eu, new" in argosy("model", "tag", "digits@3", "new", "gold").err
    assert fake.versions[0].note == "first with VNNI"
    answer = argosy("model", "tag", "digits@3", "gold", "none", "--remove")
    assert "does not have the tag none" in answer.err
    assert "tags eu, new" in answer.err
    assert argosy("model", "tag", "digits@3", "No Tag").code == 2
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("two\nlines\n"))
    assert argosy("model", "note", "digits@3", "-").code == 0
    assert (fake.versions[0].note, fake.versions[0].tags) == ("two\nlines", ("eu", "new"))
    assert argosy("model", "note", "digits@3", "x" * 10_001).code == 2
    assert "the note is gone" in argosy("model", "note", "digits@3", "").err


def test_revoking_asks_and_says_what_depends_on_it(
    argosy: Any, fake: State, version: ModelVersionView, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.devices = [
        DeviceView(
            id=new_id("dev"), device_class="cam", tags=(), state="ACTIVE", presence="ONLINE",
            certificate_expires_at=NOW, enrolled_at=NOW,
            active=ActiveModel(model="digits", version=3, variant="fp32", sha256="0" * 64),
        )
    ]  # fmt: skip
    refused = argosy("model", "revoke", "digits@3", "--reason", "leaks")
    assert (refused.code, fake.versions[0].revoked) == (2, False)
    assert "--yes" in refused.err
    asked: list[str] = []
    monkeypatch.setattr("orchestrator.cli.asking.is_anyone_there", lambda: True)
    monkeypatch.setattr("click.confirm", lambda text, **_: asked.append(text))
    assert argosy("model", "revoke", "digits@3", "--reason", "leaks").code == 0
    assert len(asked) == 1
    assert asked[0] == (
        "Revoke digits@3? Aliases that go: champion. 1 device serves it now, and will until given"
        " another. It cannot be undone."
    )
    assert fake.versions[0].revoked_reason == "leaks"
    assert "state       REVOKED: leaks" in argosy("model", "get", "digits@3").out
    assert argosy("model", "revoke", "digits@3", "--reason", "leaks").code == 0, "a repeat"
    back = argosy("model", "revoke", "digits@3", "--reason", "leaks", "--rollback")
    assert "argosy rollout ls" in back.err
    assert argosy("model", "revoke", "digits@3", "--reason", "").code == 2
    assert argosy("model", "revoke", "digits@3").code == 2


def test_collection_shows_first_and_does_it_only_when_told(argosy: Any, fake: State) -> None:
    assert "nothing to collect" in argosy("model", "gc").err
    fake.report = CollectReport(dry_run=True, purged=("digits@1",), artifacts=3, bytes=2_500_000)
    answer = argosy("model", "gc", "--keep-last", "5")
    assert answer.err == (
        "would go: digits@1; 3 files, 2.5 MB\nnothing was collected: say --yes to do it\n"
    )
    answer = argosy("model", "gc", "--yes", "--older-than", "0")
    assert answer.err.endswith("collected: digits@1; 3 files, 2.5 MB\n")
    report = CollectReport.model_validate_json(argosy("model", "gc", "-o", "json").out)
    assert report.dry_run
    assert "--keep-last: must be greater" in argosy("model", "gc", "--keep-last", "0").err


def test_device_classes(argosy: Any, fake: State) -> None:
    answer = argosy("device-class", "set", "cam", "--max-size-mb", "0.1", "--note", "a camera")
    assert (answer.code, answer.err) == (0, "cam: 0.1 MB\n")
    argosy("device-class", "set", "cam", "--max-latency-ms", "5", "--max-size-mb", "0.2")
    rows = argosy("device-class", "ls").out.splitlines()
    assert rows[1].split() == ["cam", "0", "0.2", "MB", "5", "ms", "-", "a", "camera"]
    assert "at most  0.2 MB, 5 ms" in argosy("device-class", "get", "cam").out
    assert argosy("device-class", "set", "cam", "--max-size-mb", "-1").code == 2
    assert "NAME" in argosy("device-class", "set", "A/b").err
    assert argosy("device-class", "rm", "cam").code == 0
    assert argosy("device-class", "rm", "cam").code == 5
    assert "argosy device-class set" in argosy("device-class", "ls").err


@pytest.mark.parametrize("ref", ["../x@1", "digits@1@2", "@1", "digits@../1"])
def test_a_reference_that_is_none(argosy: Any, fake: State, ref: str) -> None:
    for argv in (["get", ref], ["tag", ref, "a"], ["revoke", ref, "--reason", "x", "-y"]):
        answer = argosy("model", *argv)
        assert answer.code == 2
        assert "not of the form MODEL@VERSION" in answer.err
    assert fake.seen == []


def test_who_finds_a_variant_within_its_budget_is_said(argosy: Any, fake: State) -> None:
    small, big = variant(fake, "int8"), variant(fake, "fp32")
    small = small.model_copy(update={"file": small.file.model_copy(update={"size": 90_000})})
    big = big.model_copy(update={"file": big.file.model_copy(update={"size": 480_000})})
    version_view(
        fake, 1, variants=(big, small),
        budgets={
            "camera": Budget(max_size_mb=0.1),
            "server": Budget(max_latency_ms=1000),
            "tag": Budget(max_size_mb=0.01, max_rss_mb=2),
        },
    )  # fmt: skip
    lines = argosy("model", "get", "digits@1").out.splitlines()
    assert [line for line in lines if line.startswith("class ")] == [
        "class camera, at most 0.1 MB: int8",
        "class server, at most 1000 ms: fp32, int8",
        "class tag, at most 0.01 MB, 2 MiB of memory: no variant fits",
    ]
