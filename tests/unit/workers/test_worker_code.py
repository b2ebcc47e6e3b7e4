"""Archives of user code: what is unpacked, and all that is refused."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from pathlib import Path

import pytest

from schemas.job import JobCause
from schemas.lineage import MAX_CODE_FILES, MAX_UNPACKED_BYTES, Code
from workers.agent import code as subject
from workers.agent.code import CodeCache, unpack
from workers.errors import JobFailed


def entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def archive(*files: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in files:
            target.writestr(entry(name) if isinstance(name, str) else name, data)
    return out.getvalue()


def unpacked(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "code.zip"
    path.write_bytes(data)
    unpack(path, tmp_path / "out")
    return tmp_path / "out"


def code_of(data: bytes) -> Code:
    return Code(sha256=hashlib.sha256(data).hexdigest(), size=len(data), files=1)


def test_files_are_unpacked_with_their_folders(tmp_path: Path) -> None:
    data = archive(
        ("task.py", b"x = 1"),
        ("lib/deep/a.txt", b"a"),
        ("lib/", b""),
        (entry("run.sh", stat.S_IFREG | 0o755), b"#!"),
        ("torch.txt", b"no module"),
        ("ray-notes/a.py", b""),
        ("lib/torch.py", b""),
        ("lib/random.py", b""),
        ("test/__init__.py", b""),
        ("data/queue/a.txt", b""),
        (".gitignore", b"task.py"),
        (".rayignore", b"task.py"),
    )
    out = unpacked(tmp_path, data)
    names = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert names == {
        "task.py",
        "lib/deep/a.txt",
        "run.sh",
        "torch.txt",
        "ray-notes/a.py",
        "lib/torch.py",
        "lib/random.py",
        "test/__init__.py",
        "data/queue/a.txt",
        ".gitignore",
    }
    assert (out / "task.py").read_bytes() == b"x = 1"
    assert (out / "run.sh").stat().st_mode & 0o777 == 0o700
    assert (out / "task.py").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../up.py", "does not lie inside"),
        ("a/../../up.py", "does not lie inside"),
        ("/etc/passwd", "does not lie inside"),
        ("a\\..\\b.py", "does not lie inside"),
        ("c:/x.py", "does not lie inside"),
        ("a\nb.py", "does not lie inside"),
        ("/".join(["d"] * 40) + "/x", "too deep"),
        ("x" * 2000, "too long"),
        ("torch.py", "hide the platform's own module"),
        ("ray/__init__.py", "hide the platform's own module"),
        ("workers.cpython-311-x86_64-linux-gnu.so", "hide the platform's own module"),
        ("random.py", "hide Python's own module"),
        ("queue/__init__.py", "hide Python's own module"),
        (entry("link", stat.S_IFLNK | 0o777), "link or a device"),
        (entry("pipe", stat.S_IFIFO | 0o644), "link or a device"),
        (entry("disk", stat.S_IFBLK | 0o644), "link or a device"),
    ],
)
def test_entries_that_are_refused(tmp_path: Path, name, says) -> None:
    with pytest.raises(JobFailed, match=says) as caught:
        unpacked(tmp_path, archive(("ok.py", b""), (name, b"/etc/passwd")))
    assert caught.value.cause is JobCause.ENVIRONMENT
    assert "\n" not in caught.value.detail
    assert not (tmp_path / "out").exists(), "nothing is written before all is checked"


@pytest.mark.parametrize("second", ["task.py", "task.py/x.py"])
def test_two_entries_of_one_name_are_refused(tmp_path: Path, second: str) -> None:
    data = archive(("task.py", b"1"), (entry(second), b"2"))
    with pytest.raises(JobFailed, match="two entries claim one name"):
        unpacked(tmp_path, data)


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    good = archive(("task.py", os.urandom(5000)))
    broken = bytearray(good)
    broken[2000] ^= 0xFF
    for data in (b"", b"PK", os.urandom(2000), good[:-30], bytes(broken)):
        with pytest.raises(JobFailed, match="refused"):
            unpacked(tmp_path, data)
        for left in (tmp_path / "out").glob("*"):
            left.unlink()
        if (tmp_path / "out").exists():
            (tmp_path / "out").rmdir()


def test_an_entry_that_is_larger_than_it_says_is_refused(tmp_path: Path) -> None:
    real = archive(("big.bin", b"x" * 100_000))
    lie = real.replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lie != real
    with pytest.raises(JobFailed, match="refused"):
        unpacked(tmp_path, lie)
    assert sum(p.stat().st_size for p in tmp_path.rglob("big.bin")) <= 10


def test_bombs_are_refused_by_what_they_say(tmp_path: Path) -> None:
    bomb = archive(*[(f"{n}.bin", b"\0" * 1024**2) for n in range(100)])
    with pytest.raises(JobFailed, match="would become"):
        unpacked(tmp_path, bomb)
    real = archive(("a.bin", os.urandom(100)))
    for field in (MAX_UNPACKED_BYTES + 1, 2**32 - 2):
        lie = real.replace((100).to_bytes(4, "little"), field.to_bytes(4, "little"))
        with pytest.raises(JobFailed, match=r"would unpack to|refused"):
            unpacked(tmp_path, lie)
    many = archive(*[(f"{n}", b"") for n in range(MAX_CODE_FILES + 1)])
    with pytest.raises(JobFailed, match="entries, more than"):
        unpacked(tmp_path, many)


def test_code_is_fetched_once_and_whole_or_not_at_all(tmp_path: Path) -> None:
    data = archive(("task.py", b"x = 1"))
    fetched = []

    def fetch(sha256: str, path: Path, limit: int) -> None:
        fetched.append(sha256)
        assert limit == len(data)
        path.write_bytes(data)

    cache = CodeCache(tmp_path / "code")
    code = code_of(data)
    folder = cache.folder_of(code, fetch)
    assert folder == tmp_path / "code" / code.sha256
    assert cache.folder_of(code, fetch) == folder
    assert fetched == [code.sha256]
    bad = archive(("torch.py", b""))
    with pytest.raises(JobFailed):
        cache.folder_of(code_of(bad), lambda _sha, path, _limit: path.write_bytes(bad))
    assert [p.name for p in (tmp_path / "code").iterdir()] == [code.sha256]


def test_the_least_recently_used_code_goes_first_and_none_in_use(tmp_path: Path) -> None:
    cache = CodeCache(tmp_path, max_folders=2)
    codes = []
    for n in range(4):
        data = archive(("task.py", b"%d" % n))
        codes.append(code_of(data))
        folder = cache.folder_of(codes[n], lambda _s, path, _l, data=data: path.write_bytes(data))
        os.utime(folder, (n, n))
    cache.prune({codes[0].sha256})
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {codes[0].sha256, codes[2].sha256, codes[3].sha256}


def test_code_beyond_the_size_limit_goes(tmp_path: Path) -> None:
    cache = CodeCache(tmp_path, max_bytes=2500)
    for n in range(4):
        data = archive(("task.py", b"%d" % n * 1000))
        code = code_of(data)
        folder = cache.folder_of(code, lambda _s, path, _l, data=data: path.write_bytes(data))
        os.utime(folder, (n, n))
    cache.prune(())
    assert len(list(tmp_path.iterdir())) == 2
    assert subject.MAX_CACHE_BYTES == 2 * 1024**3
