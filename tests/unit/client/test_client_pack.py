from __future__ import annotations

import os
import random
import subprocess
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.client import pack as pack_module
from orchestrator.client.checkout import revision
from orchestrator.client.ignore import MAX_IGNORE_BYTES
from orchestrator.client.pack import packed
from orchestrator.errors import ArgosyError, Invalid, TooLarge
from schemas.errors import Exit
from schemas.jobfile import RESERVED_MODULES
from workers.agent.code import unpack

FILES = {"task.py": "class T: ...\n", "pkg/__init__.py": "", "pkg/deep/a.py": "x = 1\n"}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def names(folder: Path) -> list[str]:
    with packed(folder) as found:
        return list(found.names)


def refused(folder: Path, kind: type[ArgosyError] = Invalid) -> ArgosyError:
    with pytest.raises(kind) as caught, packed(folder):
        pass
    assert caught.value.exit is Exit.USAGE
    assert "\n" not in caught.value.detail
    return caught.value


def test_the_same_contents_give_the_same_archive(tmp_path: Path) -> None:
    digests = []
    for turn in range(3):
        items = list(FILES.items())
        random.Random(turn).shuffle(items)  # noqa: S311 - an order, not a secret
        folder = write(tmp_path / f"f{turn}", dict(items))
        (folder / "task.py").chmod(0o600 if turn else 0o664)
        os.utime(folder / "task.py", (turn * 10_000, turn * 10_000))
        with packed(folder) as found:
            digests.append(found.code.sha256)
            with zipfile.ZipFile(found.path) as archive:
                assert archive.namelist() == sorted(FILES)
            assert found.code.size == found.path.stat().st_size
            assert found.code.files == len(FILES)
        assert not found.path.exists()
    assert len(set(digests)) == 1
    (folder / "task.py").write_text("class U: ...\n")
    with packed(folder) as found:
        assert found.code.sha256 != digests[0]


@given(st.dictionaries(st.from_regex(r"[a-z]{1,4}(/[a-z]{1,4})?\.txt", fullmatch=True), st.text(
    st.characters(codec="ascii"), max_size=30), min_size=1, max_size=6))  # fmt: skip
def test_what_is_packed_is_what_an_agent_unpacks(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, str]
) -> None:
    top = tmp_path_factory.mktemp("round")
    folder = top / "code"
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    with packed(folder) as found:
        unpack(found.path, top / "out")
    there = {p.relative_to(top / "out").as_posix(): p for p in (top / "out").rglob("*.txt")}
    assert {name: path.read_bytes() for name, path in there.items()} == {
        name: text.encode() for name, text in files.items()
    }


def test_executable_files_stay_so(tmp_path: Path) -> None:
    folder = write(tmp_path / "code", FILES)
    (folder / "task.py").chmod(0o755)
    with packed(folder) as found:
        unpack(found.path, tmp_path / "out")
    assert os.access(tmp_path / "out" / "task.py", os.X_OK)
    assert not os.access(tmp_path / "out" / "pkg/__init__.py", os.X_OK)


def test_requirements_are_noted(tmp_path: Path) -> None:
    with packed(write(tmp_path, {**FILES, "requirements.txt": "six\n"})) as found:
        assert found.code.requirements
    (tmp_path / "requirements.txt").rename(tmp_path / "pkg/requirements.txt")
    with packed(tmp_path) as found:
        assert not found.code.requirements


def test_ignore_files_are_honoured_as_git_does(tmp_path: Path) -> None:
    write(tmp_path, FILES | {
        ".gitignore": "*.log\n/data/\nout/*\n!out/keep.txt\n",
        ".argosyignore": "notes.md\n!wanted.log\n",
        "pkg/.gitignore": "secret.py\n!special.log\n",
        "a.log": "", "wanted.log": "", "pkg/special.log": "", "pkg/secret.py": "",
        "secret.py": "", "data/x.bin": "", "pkg/data/y.bin": "", "out/a.txt": "",
        "out/keep.txt": "", "notes.md": "", "pkg/notes.md": "",
    })  # fmt: skip
    assert names(tmp_path) == [
        "out/keep.txt", "pkg/__init__.py", "pkg/data/y.bin", "pkg/deep/a.py", "pkg/special.log",
        "secret.py", "task.py", "wanted.log",
    ]  # fmt: skip


def test_some_things_are_never_packed(tmp_path: Path) -> None:
    folders = (".git", "__pycache__", ".venv", "venv", "node_modules", ".mypy_cache",
               ".pytest_cache", "pkg/__pycache__")  # fmt: skip
    write(tmp_path, FILES | {f"{name}/x": "" for name in folders})
    write(tmp_path, {"a.pyc": "", ".DS_Store": "", ".argosyignore": "!a.pyc\n!.venv/\n"})
    (tmp_path / "link").symlink_to(tmp_path / ".git")
    assert names(tmp_path) == sorted(FILES)


def test_the_checkout_around_the_folder_has_a_say(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    write(tmp_path, {".gitignore": "*.ckpt\n"})
    folder = write(tmp_path / "jobs/one", {"task.py": "", "a.ckpt": ""})
    assert names(folder) == ["task.py"]
    # Unless it does not want the folder at all: then who packs it does.
    write(tmp_path, {".gitignore": "*.ckpt\njobs/\n"})
    assert names(folder) == ["a.ckpt", "task.py"]


def test_links_inside_are_files_and_links_outside_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "code", FILES)
    (folder / "again.py").symlink_to("task.py")
    (folder / "again").symlink_to("pkg")
    assert names(folder) == sorted([
        *FILES, "again.py", "again/__init__.py", "again/deep/a.py",
    ])  # fmt: skip
    (folder / "host").symlink_to("/etc/hostname")
    error = refused(folder)
    assert error.detail == f"host is a link that leads out of {folder}"
    assert ".argosyignore" in (error.hint or "")
    (folder / ".argosyignore").write_text("host\n")
    assert "host" not in names(folder)


def test_links_that_lead_nowhere_or_round_are_refused(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    (tmp_path / "gone").symlink_to("nothing")
    assert refused(tmp_path).detail == "gone is a link that leads nowhere"
    (tmp_path / "gone").unlink()
    (tmp_path / "pkg/up").symlink_to(".")
    assert "leads back" in refused(tmp_path).detail
    (tmp_path / "pkg/up").unlink()
    (tmp_path / "self").symlink_to("self")
    assert "self" in refused(tmp_path).detail


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path).detail == "pipe is neither a file nor a folder"


@pytest.mark.parametrize("name", ["a\nb.py", "a\\b.py", "c:d.py", b"\xff.py"])
def test_odd_names_are_refused(tmp_path: Path, name: str | bytes) -> None:
    write(tmp_path, FILES)
    (tmp_path / (os.fsdecode(name))).touch()
    assert "not a name that can be packed" in refused(tmp_path).detail


PRIVATE = "-----BEGIN {}PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        (".env", "A=1", ".env: a file"),
        (".env.production", "A=1", ".env.production: a file"),
        ("pkg/id_rsa", "x", "pkg/id_rsa: a file"),
        (".netrc", "", ".netrc: a file"),
        (".pypirc", "", ".pypirc: a file"),
        ("deploy/kubeconfig", "", "deploy/kubeconfig: a file"),
        ("credentials.json", "{}", "credentials.json: a file"),
        (".aws/credentials", "", ".aws/credentials: a file"),
        ("a.pem", PRIVATE.format("RSA "), "a.pem:1: a private key"),
        ("a.key", "\n\n" + PRIVATE.format(""), "a.key:3: a private key"),
        ("a.json", '{"k": "' + PRIVATE.format("") + '\\n"}', "a.json:1: a private key"),
        ("a.py", "x\nK = 'AKIA" + "A2" * 8 + "'", "a.py:2: an AWS access key"),
        ("a.py", f"T = 'arg_key_{'0' * 16}_{'x' * 43}'", "a.py:1: an Argosy token"),
        ("a.sh", "export T=ghp_" + "a1" * 18, "a.sh:1: a GitHub token"),
        ("a.sh", "export T=github_pat_" + "a1" * 20, "a.sh:1: a GitHub token"),
        ("a.yaml", "token: hf_" + "aB" * 17, "a.yaml:1: a Hugging Face token"),
    ],
)
def test_secrets_stay_here(tmp_path: Path, name: str, text: str, where: str) -> None:
    write(tmp_path, FILES | {name: text})
    error = refused(tmp_path)
    assert error.detail.startswith(where)
    assert "must not leave this machine" in error.detail
    assert ".argosyignore" in (error.hint or "")
    write(tmp_path, {".argosyignore": f"/{name}\n"})
    assert names(tmp_path) == sorted(FILES)


def test_all_secrets_come_at_once(tmp_path: Path) -> None:
    write(tmp_path, FILES | {".env": "", "z.py": "hf_" + "a" * 34})
    error = refused(tmp_path)
    assert error.detail.endswith("and 1 more")
    assert [(f.field, f.message) for f in error.fields] == [("z.py:1", "a Hugging Face token")]


def test_what_only_looks_like_a_secret_is_packed(tmp_path: Path) -> None:
    fine = {
        ".env.example": "TOKEN=", "a.pem": "-----BEGIN CERTIFICATE-----",
        "a.py": "AKIAIOSFODNN7EXAMPLE arg_key_x ghp_short hf_hub_download", "b.key": "1",
    }  # fmt: skip
    assert names(write(tmp_path, fine)) == sorted(fine)


def test_a_link_does_not_hide_a_secret(tmp_path: Path) -> None:
    write(tmp_path, {"config.txt": "", ".env": "A=1", ".argosyignore": ".env\n"})
    (tmp_path / "settings").symlink_to(".env")
    assert refused(tmp_path).detail.startswith(".env: a file")


@pytest.mark.parametrize("module", sorted(RESERVED_MODULES))
@pytest.mark.parametrize("form", ["{}.py", "{}/__init__.py", "{}/data.txt", "{}.so"])
def test_nothing_may_hide_the_platforms_modules(tmp_path: Path, module: str, form: str) -> None:
    write(tmp_path, FILES | {form.format(module): ""})
    assert f"would hide the platform's own module '{module}'" in refused(tmp_path).detail


@pytest.mark.parametrize("name", ["random.py", "queue/__init__.py", "calendar.so"])
def test_nothing_may_hide_pythons_modules(tmp_path: Path, name: str) -> None:
    write(tmp_path, FILES | {name: ""})
    assert "would hide Python's own module" in refused(tmp_path).detail


def test_such_a_name_further_down_or_of_data_is_fine(tmp_path: Path) -> None:
    files = {
        "test/__init__.py": "",
        "random/a.txt": "",
        "pkg/queue.py": "",
        "types.txt": "",
        "pkg/torch.py": "",
        "pkg/schemas/a.py": "",
        "ray.txt": "",
        "torchlike.py": "",
    }
    assert names(write(tmp_path, files)) == sorted(files)


def test_too_much_names_the_largest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, FILES | {"big.bin": os.urandom(30_000).hex(), "data/a": "", "data/b": ""})
    monkeypatch.setattr(pack_module, "MAX_CODE_BYTES", 20_000)
    error = refused(tmp_path, TooLarge)
    assert "packs to more than" in error.detail
    assert [fault.field for fault in error.fields] == ["big.bin"]
    assert ".argosyignore" in (error.hint or "")
    monkeypatch.setattr(pack_module, "MAX_UNPACKED_BYTES", 50_000)
    assert "holds" in refused(tmp_path, TooLarge).detail
    monkeypatch.setattr(pack_module, "MAX_CODE_FILES", 4)
    error = refused(tmp_path, TooLarge)
    assert "6 files, more than 4" in error.detail
    assert ("data/", "2 files") in [(fault.field, fault.message) for fault in error.fields]


def test_a_folder_without_end_is_not_walked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.client.selection.MAX_SEEN", 3)
    assert "more than 3 files and folders" in refused(write(tmp_path, FILES), TooLarge).detail


@pytest.mark.parametrize(
    ("text", "words"), [("ok\n!\n", ":2: '!'"), ("x" * (MAX_IGNORE_BYTES + 1), "larger than")]
)
def test_a_broken_ignore_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    write(tmp_path, FILES | {".argosyignore": text})
    assert words in refused(tmp_path).detail


def test_what_is_no_folder_of_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "nothing to pack" in refused(tmp_path).detail
    assert "no such folder" in refused(tmp_path / "nowhere").detail
    write(tmp_path, FILES)
    assert "not a folder" in refused(tmp_path / "task.py").detail
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "a whole home" in refused(tmp_path).detail


def git(folder: Path, *arguments: str) -> None:
    env = {
        "HOME": str(folder), "PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER")
           for what in ("NAME", "EMAIL")},
    }  # fmt: skip
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, env=env)  # noqa: S607 - any git


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    write(tmp_path / "code", FILES)
    write(tmp_path, {"other.txt": "1"})
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "x")
    return tmp_path / "code"


def test_a_commit_is_named_and_whether_it_is_all(checkout: Path) -> None:
    def state() -> tuple[bool, bool]:
        with packed(checkout) as found:
            return found.code.git_commit is not None, found.code.git_dirty

    assert state() == (True, False)
    write(checkout.parent, {"other.txt": "2"})
    assert state() == (True, False), "what is beside the folder is not of it"
    write(checkout, {"notes.txt": ""})
    assert state() == (True, True), "an untracked file travels"
    write(checkout, {".argosyignore": "notes.txt"})
    assert state() == (True, False), "one that does not travel does not matter"
    write(checkout, {"task.py": "changed"})
    assert state() == (True, True)


def test_a_link_to_what_is_tracked_is_tracked(checkout: Path) -> None:
    (checkout / "again").symlink_to("pkg")
    git(checkout.parent, "add", ".")
    git(checkout.parent, "commit", "-q", "-m", "y")
    with packed(checkout) as found:
        assert not found.code.git_dirty


def test_without_git_or_a_commit_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkout: Path
) -> None:
    plain = write(tmp_path / "plain", FILES)
    assert revision(plain, FILES) is None, "in a checkout, and not of it"
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert revision(checkout, FILES) is not None, "a hook's variables do not matter"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert revision(checkout, FILES) is None


def test_a_git_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "git"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert revision(tmp_path, [], seconds=0.05) is None
