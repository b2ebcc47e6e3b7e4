"""Patches on the server: made once, offered while their file is served, bounded, collected."""

from __future__ import annotations

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest

from edge_client.patch import apply
from orchestrator.adapters.patch_maker import FilePatchMaker
from orchestrator.errors import NotFound, Unavailable
from orchestrator.services.patch_workshop import PatchWorkshop
from orchestrator.services.patches import MAX_WAITING, PatchService, fetchable
from orchestrator.services.ports import GivenUp
from orchestrator.services.revocation import RevocationService
from orchestrator.services.transfer import TransferService
from schemas.model import CollectRequest, RevokeRequest
from schemas.transfer import CHUNK_BYTES, Ask, PatchOffer, leaves_digest

DAY = 86400.0
SIZE = 320_000


def weights(seed: int) -> bytes:
    return np.random.default_rng(seed).normal(0, 0.1, SIZE // 4).astype("f4").tobytes()


def tuned(data: bytes, seed: int) -> bytes:
    """As a fine-tuning leaves it."""
    body = np.frombuffer(data, "f4")
    step = np.random.default_rng(seed).normal(0, 1e-3, len(body))
    return (body * (1 + step)).astype("f4").tobytes()


class Site:
    """A platform with a line of versions, each a fine-tuning of the one before."""

    def __init__(self, platform, folder) -> None:
        self.platform, self.folder = platform, folder
        self.maker = Counting(FilePatchMaker(platform.artifacts, folder / "patches"))
        self.patches = self.server()
        self.contents: list[bytes] = []

    def server(self, maker=None, **more) -> PatchService:
        p = self.platform
        workshop = PatchWorkshop(p.uow, p.clock, p.artifacts, maker or self.maker, **more)
        return PatchService(p.uow, p.clock, workshop)

    def version(self, content: bytes | None = None) -> str:
        """Register the next; the digest of its file."""
        if content is None:
            last = self.contents[-1] if self.contents else None
            content = weights(1) if last is None else tuned(last, len(self.contents))
        self.contents.append(content)
        manifest = self.platform.manifest("int8", content=content)
        self.platform.models.register("digits", manifest, None)
        return manifest.variants[0].file.sha256

    def records(self) -> dict[tuple[str, str], str | None]:
        with self.platform.uow.read() as tx:
            return {(r.target, r.base): r.sha256 for r in tx.patches.made()}

    def there(self) -> set[str]:
        return {found.sha256 for found in self.platform.artifacts.stored()}


class Counting:
    """A maker that remembers what it was asked for, and does something else first."""

    def __init__(self, maker) -> None:
        self._maker, self.asked, self.first = maker, [], lambda: None

    @contextmanager
    def make(self, base, target, going):
        self.asked.append((base, target))
        self.first()
        with self._maker.make(base, target, going) as made:
            yield made


@pytest.fixture
def site(platform, tmp_path):
    return Site(platform, tmp_path)


def whole(site, sha256: str) -> bytes:
    with site.platform.artifacts.open(sha256) as file:
        return file.read()


def test_a_patch_is_made_beside_and_makes_the_file(site) -> None:
    old, new = site.version(), site.version()
    wait = site.patches.offer(new, [old])
    assert isinstance(wait, float)
    assert 1 <= wait <= 60
    assert site.patches.work()
    offer = site.patches.offer(new, [old])
    assert isinstance(offer, PatchOffer)
    assert (offer.base, offer.size) == (old, len(whole(site, offer.sha256)))
    assert offer.size < 0.8 * SIZE
    assert offer.leaves_sha256 == leaves_digest(site.platform.artifacts.leaves(offer.sha256))
    made = bytearray(SIZE)

    def write(index: int, data: bytes) -> bool:
        made[index * CHUNK_BYTES : index * CHUNK_BYTES + len(data)] = data
        return True

    patch, base = (io.BytesIO(whole(site, one)) for one in (offer.sha256, old))
    apply(patch, base, wanted=lambda _: True, write=write)
    assert bytes(made) == whole(site, new)
    assert not site.patches.work()
    assert site.maker.asked == [(old, new)]
    assert not list((site.folder / "patches").iterdir())


def test_the_answer_to_leaves_carries_it_and_the_patch_is_served(site) -> None:
    old, new = site.version(), site.version()
    p = site.platform
    transfer = TransferService(
        p.models,
        p.artifacts,
        p.trust,
        serves=fetchable(p.models.serves, site.patches),
        patches=site.patches,
    )
    ask = Ask(kind="leaves", sha256=new, held=(old,), takes=("patch",))
    first = transfer.reply("dev_1", ask)
    assert first.retry_in
    assert first.patch is None
    site.patches.work()
    reply = transfer.reply("dev_1", ask)
    assert reply.retry_in is None
    patch = transfer.reply("dev_1", Ask(kind="leaves", sha256=reply.patch.sha256))
    assert (patch.error, patch.size) == (None, reply.patch.size)
    revoke(p, 2)
    assert transfer.reply("dev_1", Ask(kind="leaves", sha256=reply.patch.sha256)).error
    assert site.patches.offer(new, [old]) is None


def revoke(platform, version: int) -> None:
    request = RevokeRequest(reason="bad")
    RevocationService(platform.uow, platform.clock).revoke("digits", version, request, "me")


def test_only_files_of_versions_are_patched_from_and_to(site) -> None:
    old, new = site.version(), site.version()
    stray = site.platform.file("code.zip", weights(9)).sha256
    golden = site.platform.models.get("digits", 2).manifest.variants[0].golden.file.sha256
    assert site.patches.offer(stray, [old]) is None  # what devices may not fetch
    assert site.patches.offer(new, [stray]) is None  # what no version has
    assert site.patches.offer(new, []) is None
    assert site.patches.offer(new, [new]) is None
    assert site.patches.offer(golden, [old]) is None  # too small to be worth it
    assert not site.patches.work()
    assert site.patches.offer(new, ["0" * 64, old]) is not None


def test_the_likest_base_is_taken_and_what_is_no_use_is_never_tried_again(site) -> None:
    noise = site.version(np.random.default_rng(5).bytes(SIZE))
    old = site.version(weights(1))
    new = site.version(weights(1)[: SIZE - 400] + os.urandom(400))
    site.patches.offer(new, [noise, old])
    site.patches.work()
    assert site.maker.asked == [(old, new)]
    assert site.patches.offer(new, [noise, old]).base == old
    assert isinstance(site.patches.offer(new, [noise]), float)  # another device has only this
    site.patches.work()
    assert site.patches.offer(new, [noise]) is None
    assert site.maker.asked == [(old, new), (noise, new)]
    site.platform.clock.forward(31 * DAY)
    site.patches.tidy()
    assert isinstance(site.patches.offer(new, [noise]), float)


def test_two_servers_make_it_once(site) -> None:
    old, new = site.version(), site.version()
    other = site.server()
    site.patches.offer(new, [old])
    other.offer(new, [old])
    inside, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        assert go_on.wait(10)

    site.maker.first = wait
    with ThreadPoolExecutor() as pool:
        making = pool.submit(site.patches.work)
        assert inside.wait(10)
        other.work()
        assert isinstance(other.offer(new, [old]), float)
        go_on.set()
        making.result(10)
    assert site.maker.asked == [(old, new)]
    assert isinstance(other.offer(new, [old]), PatchOffer)


def test_a_killed_server_bars_nobody_for_long(site) -> None:
    old, new = site.version(), site.version()

    def killed() -> None:
        raise KeyboardInterrupt  # what comes after it in the thread does not run either

    class Dead(PatchWorkshop):
        def _release(self, claim) -> None:
            pass

    p = site.platform
    site.maker.first = killed
    dead = PatchService(p.uow, p.clock, Dead(p.uow, p.clock, p.artifacts, site.maker))
    dead.offer(new, [old])
    with pytest.raises(KeyboardInterrupt):
        dead.work()
    site.maker.first = lambda: None
    site.patches.offer(new, [old])
    site.patches.work()
    assert site.records() == {}
    p.clock.forward(200)
    assert isinstance(site.patches.offer(new, [old]), float)
    site.patches.work()
    assert isinstance(site.patches.offer(new, [old]), PatchOffer)


def test_what_cannot_be_made_now_is_pulled_for_a_while_and_then_tried_again(site) -> None:
    old, new = site.version(), site.version()

    def full() -> None:
        msg = "the disk is full"
        raise Unavailable(msg)

    site.maker.first = full
    site.patches.offer(new, [old])
    assert site.patches.work()
    assert site.patches.offer(new, [old]) is None
    site.maker.first = lambda: None
    site.platform.clock.forward(61)
    assert isinstance(site.patches.offer(new, [old]), float)
    site.patches.work()
    assert isinstance(site.patches.offer(new, [old]), PatchOffer)


def test_a_stop_ends_the_work_and_leaves_no_claim(site) -> None:
    old, new = site.version(), site.version()
    site.maker.first = site.patches.end
    site.patches.offer(new, [old])
    site.patches.work()
    assert site.records() == {}
    with site.platform.uow.read() as tx:
        assert tx.patches.get(new, old) is None
    assert site.patches.offer(new, [old]) is None


def test_those_offered_longest_ago_go_when_they_are_too_many(site) -> None:
    files = [site.version() for _ in range(4)]
    sizes = []
    site.patches = site.server(max_bytes=int(1.3 * SIZE))
    for base, target in pairwise(files):
        site.platform.clock.forward(60)
        site.patches.offer(target, [base])
        site.patches.work()
        offer = site.patches.offer(target, [base])
        sizes.append(offer.size)
        if target == files[2]:  # the first is asked for once more, after the second
            site.platform.clock.forward(60)
            site.patches.offer(files[1], [files[0]])
            site.patches.tidy()
    assert sum(sizes) > 1.3 * SIZE > sizes[0] + sizes[2]
    assert set(site.records()) == {(files[1], files[0]), (files[3], files[2])}
    assert set(site.records().values()) <= site.there()
    assert len(site.there()) == 4 + 1 + 2  # files, what versions share, patches


def test_a_patch_beyond_the_bound_is_not_kept_at_all(site) -> None:
    old, new = site.version(), site.version()
    site.patches = site.server(max_bytes=1000)
    site.patches.offer(new, [old])
    site.patches.work()
    assert site.patches.offer(new, [old]) is None
    assert len(site.there()) == 3  # the files, and what both versions share


def test_files_beyond_the_limit_are_not_patched(site) -> None:
    old, new = site.version(), site.version()
    site.patches = site.server(max_target_bytes=SIZE - 1)
    assert site.patches.offer(new, [old]) is None


def test_patches_go_with_the_version_they_lead_to(site) -> None:
    files = [site.version() for _ in range(3)]
    for base, target in pairwise(files):
        site.patches.offer(target, [base])
        site.patches.work()
    gone, kept = (site.records()[files[n + 1], files[n]] for n in (0, 1))
    revoke(site.platform, 2)
    assert not site.patches.serves(gone)
    assert site.patches.serves(kept)
    site.patches.tidy()
    assert set(site.records()) == {(files[2], files[1])}
    assert site.there() & {gone, kept} == {kept}


def test_a_collection_spares_live_patches_and_takes_those_of_purged_versions(site) -> None:
    p = site.platform
    files = [site.version() for _ in range(3)]
    for base, target in ((files[0], files[1]), (files[1], files[2])):
        site.patches.offer(target, [base])
        site.patches.work()
    middle, last = site.records()[files[1], files[0]], site.records()[files[2], files[1]]
    orphan = p.file("left-by-a-crash", b"patch without a record").sha256
    with p.uow() as tx:
        for alias in tx.models.aliases("digits"):
            tx.models.drop_alias("digits", alias)
    p.clock.forward(40 * DAY)
    said = p.collection.collect(CollectRequest(keep_last=1))
    done = p.collection.collect(CollectRequest(dry_run=False, keep_last=1))
    assert done.purged == said.purged == ("digits@1", "digits@2")
    assert (done.artifacts, done.bytes) == (said.artifacts, said.bytes)
    assert site.there() & {middle, last, orphan} == {last}
    assert site.patches.serves(last)  # also where its base was collected: devices hold that
    site.patches.tidy()
    assert set(site.records().values()) == {last}
    assert isinstance(site.patches.offer(files[2], [files[1]]), PatchOffer)
    assert site.patches.offer(files[2], [files[0]]) is None  # its bytes are gone


def test_a_patch_whose_file_was_lost_is_made_anew(site) -> None:
    old, new = site.version(), site.version()
    site.patches.offer(new, [old])
    site.patches.work()
    lost = site.records()[new, old]
    site.platform.artifacts.path(lost).unlink()
    site.patches = site.server()
    site.patches.tidy()
    assert isinstance(site.patches.offer(new, [old]), float)
    site.patches.work()
    assert site.records()[new, old] == lost  # the same bytes, whenever it is made


def test_asking_for_more_than_can_wait_is_refused_in_words_of_the_pull(site) -> None:
    old = site.version(weights(1))
    content = bytearray(weights(1))
    answers = []
    for number in range(MAX_WAITING + 1):
        content[:4] = number.to_bytes(4, "little")
        answers.append(site.patches.offer(site.version(bytes(content)), [old]))
    assert all(isinstance(one, float) and one <= 60 for one in answers[:-1])
    assert answers[-1] is None


def test_the_thread_makes_what_is_asked_for(site) -> None:
    old, new = site.version(), site.version()
    done = threading.Event()
    site.maker.first = done.set
    site.patches.start()
    try:
        assert isinstance(site.patches.offer(new, [old]), float)
        assert done.wait(20)
    finally:
        site.patches.stop()
    assert not any(thread.name == "patches" for thread in threading.enumerate())


def test_a_maker_says_what_is_missing_and_leaves_nothing(site, tmp_path) -> None:
    old, new = site.version(), site.version()
    maker = FilePatchMaker(site.platform.artifacts, tmp_path / "elsewhere")
    with pytest.raises(NotFound), maker.make("0" * 64, new, lambda: True):
        pass
    with pytest.raises(GivenUp), maker.make(old, new, lambda: False):
        pass
    (tmp_path / "file").write_text("in the way")
    barred = FilePatchMaker(site.platform.artifacts, tmp_path / "file")
    with pytest.raises(Unavailable, match="cannot be made"), barred.make(old, new, lambda: True):
        pass
    assert not list((tmp_path / "elsewhere").iterdir())
