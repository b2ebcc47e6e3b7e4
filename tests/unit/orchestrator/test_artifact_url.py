from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.artifact_place import check_artifacts, open_artifacts
from orchestrator.adapters.artifacts import ArtifactStore
from orchestrator.artifact_url import CACHE_MB, Bucket, parse
from orchestrator.errors import Invalid, Unavailable
from orchestrator.settings import load

MIB = 1024**2


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("/srv/artifacts", Path("/srv/artifacts")),
        ("file:///srv/my%20artifacts", Path("/srv/my artifacts")),
        ("s3://models", Bucket("models")),
        ("s3://models/", Bucket("models")),
        ("s3://models/argosy/prod/", Bucket("models", "argosy/prod")),
        (
            "s3://models/a?endpoint=https://minio:9000&region=eu-1&cache_mb=0",
            Bucket("models", "a", "https://minio:9000", "eu-1", 0),
        ),
    ],
)
def test_a_place_is_read(text: str, place: Path | Bucket) -> None:
    assert parse(text, "ARGOSY_ARTIFACTS") == place


def test_what_is_left_out_has_a_default() -> None:
    place = parse("s3://models", "x")
    assert isinstance(place, Bucket)
    assert place.cache_bytes == CACHE_MB * MIB
    assert parse("here", "x") == Path.cwd() / "here"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has a name"),
        ("/a\nb", "control characters"),
        ("gs://models", "not a folder and not a URL"),
        ("file://host/path", "not a folder and not a URL"),
        ("file:///", "not a folder and not a URL"),
        ("s3://", "not the name of a bucket"),
        ("s3://Models", "not the name of a bucket"),
        ("s3://models:9000", "not the name of a bucket"),
        ("s3://[::1", "not a folder and not a URL"),
        ("s3://models/../x", "not a prefix"),
        ("s3://models/a//b", "not a prefix"),
        ("s3://models/%0a", "not a prefix"),
        ("s3://models/" + "a" * 201, "not a prefix"),
        ("s3://models?endpint=x", "no option 'endpint'"),
        ("s3://models?region=a&region=b", "an option repeats"),
        ("s3://models?region=a b", "not a region"),
        ("s3://models?endpoint=minio", "endpoint: not a URL"),
        ("s3://models?endpoint=https://h/path", "endpoint: not a URL"),
        ("s3://models?endpoint=https://h:99999", "endpoint: not a URL"),
        ("s3://models?cache_mb=-1", "cache_mb"),
        ("s3://models?cache_mb=1e3", "cache_mb"),
        ("s3://models?cache_mb=99999999999999999999999", "cache_mb"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(text: str, words: str) -> None:
    with pytest.raises(Invalid, match=words) as told:
        parse(text, "ARGOSY_ARTIFACTS")
    assert told.value.detail.startswith("ARGOSY_ARTIFACTS: ")
    assert "\n" not in told.value.detail


@pytest.mark.parametrize(
    "text", ["s3://key:hunter2@models", "s3://models?endpoint=https://key:hunter2@minio"]
)
def test_keys_have_no_place_in_a_url_and_are_not_repeated(text: str) -> None:
    with pytest.raises(Invalid) as told:
        parse(text, "ARGOSY_ARTIFACTS")
    assert "hunter2" not in told.value.detail


def test_the_setting_goes_to_the_children_as_it_was_meant(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load({"HOME": "/users/ada", "ARGOSY_ARTIFACTS": "here"})
    assert settings.artifact_place == tmp_path / "here"
    assert load(settings.to_env()) == settings
    url = "s3://models/a?endpoint=https://minio:9000"
    assert load(load({"HOME": "/x", "ARGOSY_ARTIFACTS": url}).to_env()).artifacts == url
    with pytest.raises(Invalid, match="ARGOSY_ARTIFACTS"):
        load({"HOME": "/x", "ARGOSY_ARTIFACTS": "ftp://host/x"})


def test_without_the_setting_artifacts_are_in_the_home(tmp_path) -> None:
    settings = load({}, home=tmp_path)
    assert check_artifacts(settings) == str(tmp_path / "artifacts")
    store = open_artifacts(settings)
    assert isinstance(store, ArtifactStore)
    assert store.path("0" * 64).is_relative_to(tmp_path / "artifacts")


def test_a_folder_that_cannot_be_is_told(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    settings = load({}, home=tmp_path, artifacts=tmp_path / "file" / "artifacts")
    for act in (check_artifacts, open_artifacts):
        with pytest.raises(Unavailable, match="artifacts cannot be kept in") as told:
            act(settings)
        assert "ARGOSY_ARTIFACTS" in (told.value.hint or "")


def test_a_bucket_without_its_client_is_told(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    settings = load({}, home=tmp_path, artifacts="s3://models")
    for act in (check_artifacts, open_artifacts):
        with pytest.raises(Unavailable, match="need boto3") as told:
            act(settings)
        assert told.value.hint == "pip install 'argosy[s3]'"


def test_a_folder_needs_no_client_of_buckets(tmp_path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from orchestrator.adapters.artifact_place import open_artifacts;"
        "from orchestrator.settings import load; import orchestrator.bootstrap;"
        f"open_artifacts(load({{}}, home={str(tmp_path)!r}));"
        "sys.exit('orchestrator.adapters.s3_client' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
