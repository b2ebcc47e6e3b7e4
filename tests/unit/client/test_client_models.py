from __future__ import annotations

import json
from pathlib import Path

import pytest
from argosy_fake_platform import NOW, State, model_file, version_view

from orchestrator.client import Argosy
from orchestrator.errors import ArgosyError, Conflict, DigestMismatch, Invalid, NotFound
from schemas.budget import Budget, DeviceClassSpec
from schemas.model import AliasChange, CollectReport, CollectRequest, VersionNote
from schemas.paired import paired

DATA = bytes(range(256)) * 1000


def test_aliases_move_and_go(argosy: Argosy, fake: State) -> None:
    version_view(fake, 1)
    assert argosy.models.set_alias("digits", "next", 1).aliases["next"] == 1
    with pytest.raises(Conflict, match="next is at 1"):
        argosy.models.set_alias("digits", "next", 1, expected=7)
    assert "next" not in argosy.models.remove_alias("digits", "next").aliases
    with pytest.raises(NotFound):
        argosy.models.remove_alias("digits", "nothing")


def test_an_aliass_history_pages(argosy: Argosy, fake: State) -> None:
    fake.history = [
        AliasChange(alias="champion", version=i, before=i - 1 or None, by="key_x", at=NOW)
        for i in (5, 4, 3, 2, 1)
    ]
    seen = list(argosy.models.alias_history("digits", "champion"))
    assert [change.version for change in seen] == [5, 4, 3, 2, 1]


def test_notes_revocation_and_comparison(argosy: Argosy, fake: State) -> None:
    version_view(fake, 1)
    version_view(fake, 2)
    noted = argosy.models.annotate("digits", 1, VersionNote(tags=("gold",), note="kept"))
    assert (noted.tags, noted.note) == (("gold",), "kept")
    assert argosy.models.revoke("digits", 1, "leaks").revoked_reason == "leaks"
    fake.paired = paired(100, 3, 1)
    found = argosy.models.compare("digits", 1, 2, variant_b="fp32", split="validation")
    assert found.paired is not None
    assert (found.split, found.paired.drop) == ("validation", pytest.approx(0.02))
    query = fake.seen[-1][2]
    assert query == {"a": "1", "b": "2", "variant_b": "fp32", "split": "validation"}


def test_names_cannot_lead_to_other_routes(argosy: Argosy, fake: State) -> None:
    with pytest.raises(NotFound):
        argosy.models.version("../../jobs/x", 1)
    with pytest.raises(ArgosyError):
        argosy.models.remove_alias("digits/versions", "../1")
    assert all("jobs" not in path.split("/")[:3] for _, path, _ in fake.seen)


def test_collection_is_a_dry_run_unless_told(argosy: Argosy, fake: State) -> None:
    fake.report = CollectReport(dry_run=True, purged=("digits@1",), artifacts=3, bytes=9)
    assert argosy.models.collect().dry_run
    assert not argosy.models.collect(CollectRequest(dry_run=False)).dry_run


def test_device_classes(argosy: Argosy, fake: State) -> None:
    spec = DeviceClassSpec(budget=Budget(max_size_mb=0.1), note="a camera")
    assert argosy.device_classes.set("cam", spec).spec == spec
    assert [view.name for view in argosy.device_classes.list()] == ["cam"]
    argosy.device_classes.remove("cam")
    with pytest.raises(NotFound):
        argosy.device_classes.get("cam")


def test_a_file_is_fetched_once_and_checked(argosy: Argosy, fake: State, tmp_path: Path) -> None:
    file = model_file(fake, "a.onnx", DATA)
    told: list[int] = []
    assert argosy.artifacts.save(file, tmp_path / "a.onnx", told.append)
    assert ((tmp_path / "a.onnx").read_bytes(), sum(told)) == (DATA, len(DATA))
    assert not argosy.artifacts.save(file, tmp_path / "a.onnx")
    (tmp_path / "a.onnx").write_bytes(b"?" + DATA[1:])
    assert argosy.artifacts.save(file, tmp_path / "a.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("left", [0, 1, 100_000, len(DATA), len(DATA) + 5])
def test_a_download_goes_on_where_it_broke_off(
    argosy: Argosy, fake: State, tmp_path: Path, left: int, *, ranges: bool
) -> None:
    file, fake.ranges = model_file(fake, "a.onnx", DATA), ranges
    (tmp_path / "a.onnx.part").write_bytes((DATA + b"junk!")[:left])
    told: list[int] = []
    argosy.artifacts.save(file, tmp_path / "a.onnx", told.append)
    assert ((tmp_path / "a.onnx").read_bytes(), sum(told)) == (DATA, len(DATA))
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_a_wrong_beginning_is_found_and_not_gone_on_with(
    argosy: Argosy, fake: State, tmp_path: Path
) -> None:
    file = model_file(fake, "a.onnx", DATA)
    (tmp_path / "a.onnx.part").write_bytes(b"\0" * 50 + DATA[:50])
    with pytest.raises(DigestMismatch, match=r"a\.onnx: 256000 bytes with SHA-256"):
        argosy.artifacts.save(file, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []
    assert argosy.artifacts.save(file, tmp_path / "a.onnx")


@pytest.mark.parametrize("other", [DATA[:-1] + b"?", DATA + b"?", DATA[:-9], b""])
def test_other_bytes_are_never_taken(
    argosy: Argosy, fake: State, tmp_path: Path, other: bytes
) -> None:
    file = model_file(fake, "a.onnx", DATA)
    fake.served[file.sha256] = other
    (tmp_path / "a.onnx").write_bytes(b"old")
    with pytest.raises(ArgosyError):
        argosy.artifacts.save(file, tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == b"old"


def test_a_broken_connection_leaves_what_came(argosy: Argosy, fake: State, tmp_path: Path) -> None:
    file = model_file(fake, "a.onnx", DATA)
    fake.lost_answers = 1
    fake.served[file.sha256] = DATA[:9000]
    with pytest.raises(ArgosyError) as caught:
        argosy.artifacts.save(file, tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists(), caught.value
    fake.served.clear()
    assert argosy.artifacts.save(file, tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == DATA


def test_where_nothing_can_be_written_it_says_so(
    argosy: Argosy, fake: State, tmp_path: Path
) -> None:
    file = model_file(fake, "a.onnx", DATA)
    with pytest.raises(Invalid, match="cannot be written"):
        argosy.artifacts.save(file, tmp_path / "missing" / "a.onnx")


def test_an_onnx_file_is_uploaded_under_its_digest(
    argosy: Argosy, fake: State, tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(DATA)
    source = argosy.models.import_onnx(path, labels=["a", "b"], dynamic=True)
    assert fake.artifacts[source.file] == DATA
    assert json.loads(source.model_dump_json())["name"] == "net.onnx"
    with pytest.raises(Invalid, match="cannot be read"):
        argosy.models.import_onnx(tmp_path / "none.onnx")
