"""The trust store killed, and its disk full, at each step of writing."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from edge_client import files
from edge_client.errors import JournalError, MetadataUnavailableError, TrustError
from edge_client.journal import Journal
from edge_client.metadata_cache import MetadataCache
from edge_client.metadata_floors import FileFloors, Floors, FloorStore
from edge_client.metadata_refresh import JournalFloors
from schemas.trust import manifest_target
from tests.fakes.edge_trust import Signer

DEVICE = "dev_0000000000000001"
FIRST, SECOND = manifest_target("digits", 1), manifest_target("digits", 2)


class Store:
    """What a device keeps, in files."""

    def __init__(self, folder, kind: str) -> None:
        self.folder, self.kind = folder, kind
        folder.mkdir(exist_ok=True)

    def floors(self) -> FloorStore:
        if self.kind == "file":
            return FileFloors(self.folder / "floors.json")
        journal = Journal(self.folder / "journal.db", boot="0" * 32)
        return JournalFloors(journal, DEVICE)

    def look(self, signer: Signer, path: str, fetch=None):
        client = signer.client(MetadataCache(self.folder / "cache"), self.floors(), fetch=fetch)
        client.refresh()
        return client.target(path)


def stepwise(monkeypatch, act: Callable[[], None]) -> None:
    """``act`` before and after each step by which the store writes."""

    def around(target, name: str) -> None:
        real = getattr(target, name)

        def acting(*args, **kwargs):
            act()
            result = real(*args, **kwargs)
            act()
            return result

        monkeypatch.setattr(target, name, acting)

    around(files.os, "fsync")
    around(files.Path, "replace")
    around(files.Path, "unlink")
    around(Journal, "save_trust_floors")


def publications() -> Iterator[tuple[Signer, dict[str, bytes]]]:
    """A platform, and what it had published before its key of the timestamp was rotated."""
    signer = Signer()
    signer.add(b"first", "digits", 1)
    before = dict(signer.files)
    signer.rotate("timestamp")
    signer.add(b"second", "digits", 2)
    yield signer, before


@pytest.fixture(scope="module")
def platform():
    return next(publications())


def in_a_child(work: Callable[[], None]) -> int:
    """Run in a forked process. Returns the signal that ended it, 0 at its own end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def never_lower(before: Floors, after: Floors) -> None:
    """Floors hold; only a newer root lets those of the online roles begin anew."""
    if after.of("root") == before.of("root"):
        assert all(after.of(role) >= n for role, n in before.versions.items())
    else:
        assert after.of("root") > before.of("root")


@pytest.mark.parametrize("kind", ["journal", "file"])
def test_a_kill_at_any_step_leaves_floors_and_cache_that_hold(
    tmp_path, monkeypatch, platform, kind
):
    signer, before = platform
    killed = 0
    for at in range(200):
        store = Store(tmp_path / str(at), kind)
        assert store.look(signer, FIRST, lambda name, _limit: before.get(name)) is not None
        floors = store.floors().load()

        def work(at=at, store=store) -> None:
            left = [at]

            def act() -> None:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            stepwise(monkeypatch, act)
            assert store.look(signer, SECOND) is not None

        ended = in_a_child(work)
        killed += ended == signal.SIGKILL
        never_lower(floors, store.floors().load())
        reached = store.floors().load()
        if reached.of("root") == 2:  # then what was published before passes no more
            with pytest.raises(TrustError):
                store.look(signer, FIRST, lambda name, _limit: before.get(name))
        assert store.look(signer, SECOND) is not None
        never_lower(reached, store.floors().load())
        assert not list((store.folder / "cache").glob(".*.tmp"))
        if not ended:
            break
    assert killed >= 15


@pytest.mark.parametrize("kind", ["journal", "file"])
def test_a_full_disk_at_any_step_lets_nothing_older_pass(tmp_path, monkeypatch, platform, kind):
    signer, before = platform
    full = 0
    for at in range(200):
        store = Store(tmp_path / str(at), kind)
        store.look(signer, FIRST, lambda name, _limit: before.get(name))
        floors = store.floors().load()
        left = [at]

        def act(left=left) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            stepwise(patch, act)
            try:
                found = store.look(signer, SECOND)
            except (JournalError, MetadataUnavailableError, OSError):
                found = None
        full += left[0] < 0
        never_lower(floors, store.floors().load())
        if found is not None:  # the copy could not be kept, the floors could
            assert store.floors().load().of("snapshot") == signer.snapshot.version
        assert store.look(signer, SECOND) is not None
        if left[0] >= 0:
            break
    assert full >= 15
