from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.adapters.block_cache import BlockCache


def held(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_blocks_come_back_by_parts(tmp_path) -> None:
    cache = BlockCache(tmp_path / "cache", 100)
    cache.put("a.0", b"0123456789")
    assert cache.read("a.0", 3, 4) == b"3456"
    assert cache.read("a.0", 8, 100) == b"89"
    assert cache.read("a.1", 0, 1) is None


def test_the_least_recently_read_goes_first(tmp_path) -> None:
    cache = BlockCache(tmp_path / "cache", 30)
    for name in ("a", "b", "c"):
        cache.put(name, b"0" * 10)
    assert cache.read("a", 0, 1)
    cache.put("d", b"0" * 10)
    assert [name for name in "abcd" if cache.read(name, 0, 1)] == ["a", "c", "d"]
    assert cache.total == held(tmp_path / "cache") == 30


def test_what_is_too_large_or_does_not_fit_the_disk_is_not_kept(tmp_path, monkeypatch) -> None:
    cache = BlockCache(tmp_path / "cache", 30)
    cache.put("large", b"0" * 31)
    assert cache.read("large", 0, 1) is None

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    cache.put("a", b"0")
    assert cache.read("a", 0, 1) is None
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_block_that_vanished_is_forgotten(tmp_path) -> None:
    cache = BlockCache(tmp_path / "cache", 30)
    cache.put("a", b"0" * 10)
    (tmp_path / "cache" / "a").unlink()
    assert cache.read("a", 0, 1) is None
    assert cache.total == 0


def test_the_blocks_of_one_file_are_dropped_together(tmp_path) -> None:
    cache = BlockCache(tmp_path / "cache", 100)
    for name in ("a.0", "a.1", "b.0"):
        cache.put(name, b"0" * 10)
    cache.drop("a")
    assert cache.total == held(tmp_path / "cache") == 10
    assert cache.read("b.0", 0, 1)


def test_what_another_process_left_is_not_trusted(tmp_path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "a").write_bytes(b"torn")
    cache = BlockCache(tmp_path / "cache", 100)
    assert cache.read("a", 0, 1) is None
    assert held(tmp_path / "cache") == 0


def test_threads_see_whole_blocks_within_the_bound(tmp_path) -> None:
    cache = BlockCache(tmp_path / "cache", 10_000)
    blocks = {f"{n}": os.urandom(1) * 1000 for n in range(30)}

    def work(_: int) -> bool:
        for name, block in blocks.items():
            cache.put(name, block)
            if cache.read(name, 0, 1000) not in {None, block}:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert cache.total <= 10_000
    assert held(tmp_path / "cache") <= 10_000
