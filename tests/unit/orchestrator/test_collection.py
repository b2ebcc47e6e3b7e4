"""The collection of artifacts over the whole server: what goes, what stays, and races."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from datetime import timedelta

import pytest

from orchestrator.errors import Conflict, Invalid, NotFound, Unavailable
from orchestrator.services import registration, versions
from orchestrator.services.collection import CollectionService
from orchestrator.services.holds import Holds
from orchestrator.services.jobs import JobService
from orchestrator.services.models import ModelService
from orchestrator.services.uploads import UploadService
from schemas.access import Role
from schemas.jobfile import JobSpec
from schemas.model import CollectReport, CollectRequest, VersionNote

DAY = 86400.0
EVERYTHING = CollectRequest(dry_run=False, keep_last=1, older_than_days=0)


@pytest.fixture
def register(platform):
    """Registers a version with a file of its own and two that all of them share."""

    def one(content: bytes | None = None) -> int:
        made = platform.manifest("int8", content=content or os.urandom(32))
        return platform.models.register("digits", made, None).version

    return one


def unnamed(platform, count: int) -> None:
    """Let every version lose its aliases, and ``count`` days pass."""
    with platform.uow() as tx:
        for alias in tx.models.aliases("digits"):
            tx.models.drop_alias("digits", alias)
    platform.clock.forward(count * DAY)


def there(platform) -> set[str]:
    return {found.sha256 for found in platform.artifacts.stored()}


def files_of(platform, version: int) -> set[str]:
    return {file.sha256 for file in platform.models.get("digits", version).manifest.files()}


def test_a_dry_run_says_what_a_collection_then_does(platform, admin, register) -> None:
    for _ in range(5):
        register()
    unnamed(platform, 40)
    before = there(platform)
    said = CollectReport.model_validate(admin.post("/v1/artifacts/collect", json={}).json())
    assert said.dry_run
    assert said.purged == ("digits@1", "digits@2")
    assert said.artifacts == 2
    assert there(platform) == before
    assert not platform.models.get("digits", 1).purged
    done = admin.post("/v1/artifacts/collect", json={"dry_run": False}).json()
    assert done == {**said.model_dump(mode="json"), "dry_run": False}
    assert len(before - there(platform)) == 2
    for version in (3, 4, 5):
        assert files_of(platform, version) <= there(platform)
    assert [platform.models.get("digits", v).purged for v in range(1, 6)] == [True] * 2 + [
        False
    ] * 3
    again = admin.post("/v1/artifacts/collect", json={"dry_run": False}).json()
    assert (again["purged"], again["artifacts"], again["bytes"]) == ([], 0, 0)


def test_only_an_operator_collects(platform) -> None:
    for token in (None, platform.key(Role.WORKER), platform.key(Role.JOB, "job_x")):
        assert platform.client(token).post("/v1/artifacts/collect", json={}).status_code in {
            401,
            403,
        }
    admin = platform.client(platform.key(Role.ADMIN))
    for bad in ({"keep_last": 0}, {"older_than_days": -1}, {"force": True}):
        assert admin.post("/v1/artifacts/collect", json=bad).status_code == 422


def test_young_files_stay_whatever_is_asked(platform, register) -> None:
    register()
    register()
    unnamed(platform, 0)
    platform.clock.forward(60)
    platform.file("not-registered-yet", b"an upload under way")
    report = platform.collection.collect(EVERYTHING)
    assert report.purged == ("digits@1",)
    assert report.artifacts == 0
    assert files_of(platform, 1) <= there(platform)
    platform.clock.forward(2 * DAY)
    assert platform.collection.collect(EVERYTHING).artifacts == 2
    assert files_of(platform, 2) <= there(platform)


def test_an_old_file_that_is_uploaded_again_is_young(platform, register) -> None:
    data = b"uploaded long ago, and wanted now"
    file = platform.file("code.zip", data)
    path = platform.artifacts.path(file.sha256)
    os.utime(path, (0, 0))
    assert not platform.artifacts.put([data], file.sha256, len(data)).created
    assert platform.collection.collect(EVERYTHING).artifacts == 0
    os.utime(path, (0, 0))
    assert platform.collection.collect(EVERYTHING).artifacts == 1


def test_aliases_tags_and_the_newest_keep_their_files(platform, register) -> None:
    for _ in range(4):
        register()
    unnamed(platform, 40)
    with platform.uow() as tx:
        tx.models.set_alias("digits", "live", 1)
    platform.models.annotate("digits", 2, VersionNote(tags=("gold",)))
    assert platform.collection.collect(EVERYTHING).purged == ("digits@3",)
    for version in (1, 2, 4):
        assert files_of(platform, version) <= there(platform)


def test_the_inputs_of_jobs_stay_until_they_are_long_over(platform, admin, register) -> None:
    code = b"code"
    sha = hashlib.sha256(code).hexdigest()
    admin.put(f"/v1/artifacts/{sha}", content=code)
    packed = {"sha256": sha, "size": 4, "files": 1}
    spec = {"name": "digits", "task": "m:T", "stop": {"target": 0.9}, "code": packed}
    job = admin.post("/v1/jobs", json=spec).json()["id"]
    platform.clock.forward(40 * DAY)
    assert platform.collection.collect(EVERYTHING).artifacts == 0
    admin.post(f"/v1/jobs/{job}/cancel")
    platform.clock.forward(2 * DAY)
    assert platform.collection.collect(CollectRequest(dry_run=False)).artifacts == 0
    assert platform.collection.collect(EVERYTHING).artifacts == 1


def test_a_purged_versions_file_says_why_it_is_gone(platform, admin, register) -> None:
    register()
    register()
    file = platform.models.get("digits", 1).manifest.variants[0].file
    unnamed(platform, 40)
    platform.collection.collect(EVERYTHING)
    answer = admin.get(f"/v1/artifacts/{file.sha256}")
    assert answer.status_code == 404
    assert "was of digits@1, whose files were collected" in answer.json()["detail"]
    assert "were" not in admin.get(f"/v1/artifacts/{'0' * 64}").json()["detail"]


def test_a_collection_is_told_as_an_event(platform, register) -> None:
    register()
    register()
    unnamed(platform, 40)
    platform.collection.collect(EVERYTHING)
    with platform.uow.read() as tx:
        changes = [e.data.get("change") for e in tx.events.after(0, "digits", 100)]
    assert changes.count("purged") == 1


class Hooked:
    """A store that does something else just before it lists, or deletes."""

    def __init__(self, store, *, stored=lambda: None, delete=lambda: None) -> None:
        self._store, self._stored, self._delete = store, stored, delete

    def stored(self):
        found = list(self._store.stored())
        self._stored()
        return found

    def delete(self, sha256, before):
        self._delete()
        return self._store.delete(sha256, before)

    def __getattr__(self, name):
        return getattr(self._store, name)


def test_a_version_registered_while_files_are_listed_keeps_them(platform, register) -> None:
    made = platform.manifest("int8", content=b"registered late")
    platform.clock.forward(3 * DAY)
    late = Hooked(platform.artifacts, stored=lambda: platform.models.register("digits", made, None))
    report = CollectionService(platform.uow, platform.clock, late).collect(EVERYTHING)
    assert report.artifacts == 0
    assert {f.sha256 for f in made.files()} <= there(platform)
    assert not platform.models.get("digits", 1).purged


def test_a_version_whose_files_go_while_it_is_registered_is_refused(platform, monkeypatch) -> None:
    made = platform.manifest("int8", content=b"collected while it was checked")
    platform.clock.forward(3 * DAY)
    check = registration.check

    def slow(*args) -> None:
        check(*args)
        assert platform.collection.collect(EVERYTHING).artifacts == 2

    monkeypatch.setattr(registration, "check", slow)
    with pytest.raises(Invalid, match=r"was collected; upload it again"):
        platform.models.register("digits", made, None)
    with pytest.raises(NotFound):
        platform.models.model("digits")


def test_registering_and_collecting_at_once_loses_nothing(platform) -> None:
    failures: list[BaseException] = []
    done = threading.Event()

    def collect() -> None:
        while not done.is_set():
            try:
                platform.collection.collect(
                    CollectRequest(dry_run=False, keep_last=1000, older_than_days=0)
                )
            except Exception as error:  # noqa: BLE001 - told by the test
                failures.append(error)

    thread = threading.Thread(target=collect)
    thread.start()
    registered = refused = 0
    try:
        for number in range(40):
            made = platform.manifest("int8", content=b"%d" % number)
            for file in made.files():
                with contextlib.suppress(FileNotFoundError):
                    os.utime(platform.artifacts.path(file.sha256), (number, number))
            try:
                platform.models.register("digits", made, None)
                registered += 1
            except (Invalid, NotFound):
                refused += 1
    finally:
        done.set()
        thread.join()
    assert failures == []
    for version in range(1, registered + 1):
        assert files_of(platform, version) <= there(platform)
    assert registered + refused == 40
    assert registered


def test_a_store_that_fails_half_way_is_gone_on_with(platform, register) -> None:
    for _ in range(6):
        register()
    unnamed(platform, 40)
    calls = []

    def third() -> None:
        calls.append(1)
        if len(calls) == 3:
            msg = "the bucket does not answer"
            raise Unavailable(msg)

    failing = Hooked(platform.artifacts, delete=third)
    service = CollectionService(platform.uow, platform.clock, failing, batch=2)
    with pytest.raises(Unavailable):
        service.collect(EVERYTHING)
    assert platform.models.get("digits", 5).purged
    report = service.collect(EVERYTHING)
    assert (report.purged, report.artifacts) == ((), 3)
    assert there(platform) == files_of(platform, 6)


def test_two_collections_do_not_run_at_once(platform, register) -> None:
    register()
    tried = []

    def again() -> None:
        with pytest.raises(Conflict, match="runs already"):
            service.collect(EVERYTHING)
        tried.append(1)

    service = CollectionService(
        platform.uow, platform.clock, Hooked(platform.artifacts, stored=again)
    )
    service.collect(EVERYTHING)
    assert tried == [1]


def test_a_purged_version_comes_back_with_its_files(platform, register) -> None:
    register(b"first")
    register(b"second")
    unnamed(platform, 40)
    platform.collection.collect(EVERYTHING)
    assert platform.models.get("digits", 1).purged
    assert register(b"first") == 1
    assert not platform.models.get("digits", 1).purged
    assert files_of(platform, 1) <= there(platform)
    assert timedelta(days=40) <= platform.clock() - platform.models.get("digits", 1).created_at


def test_a_version_that_came_back_is_young_again(platform, register) -> None:
    """Whoever brings its files back wants it: the next collection does not take them at once."""
    register(b"first")
    register(b"second")
    unnamed(platform, 40)
    month = CollectRequest(dry_run=False, keep_last=1, older_than_days=30)
    assert platform.collection.collect(month).purged == ("digits@1",)
    assert register(b"first") == 1
    with platform.uow() as tx:
        assert tx.models.get("digits", 1).restored_at == platform.clock()
    platform.clock.forward(29 * DAY)
    assert platform.collection.collect(month).purged == ()
    assert files_of(platform, 1) <= there(platform)
    platform.clock.forward(2 * DAY)
    assert platform.collection.collect(month).purged == ("digits@1",)
    with pytest.raises(Conflict, match="were collected"):
        usable_now(platform)


def usable_now(platform) -> None:
    with platform.uow.read() as tx:
        versions.usable(tx, "digits", 1)


def test_no_file_is_touched_within_a_transaction(platform, admin, register) -> None:
    """A bucket may be slow: nobody who writes waits for it."""
    inside: list[str] = []
    open_now = threading.local()

    class Watched:
        def __init__(self, uow) -> None:
            self._uow = uow

        @contextlib.contextmanager
        def _opened(self, transaction):
            with transaction as tx:
                open_now.depth = getattr(open_now, "depth", 0) + 1
                try:
                    yield tx
                finally:
                    open_now.depth -= 1

        def __call__(self):
            return self._opened(self._uow())

        def read(self):
            return self._opened(self._uow.read())

    class Asked:
        def __init__(self, store) -> None:
            self._store = store

        def __getattr__(self, name):
            def call(*args, **more):
                if getattr(open_now, "depth", 0):
                    inside.append(name)
                asked.add(name)
                return getattr(self._store, name)(*args, **more)

            return call

    asked: set[str] = set()
    uow, store = Watched(platform.uow), Asked(platform.artifacts)
    collection = CollectionService(uow, platform.clock, store)
    models = ModelService(uow, platform.clock, store)
    jobs = JobService(uow, platform.clock, 30, artifacts=store)
    uploads = UploadService(store, 1000, collection.why_gone, Holds(uow, platform.clock))
    sha = hashlib.sha256(b"code").hexdigest()
    uploads.put(sha, [b"code"])
    packed = {"sha256": sha, "size": 4, "files": 1}
    spec = {"name": "digits", "task": "m:T", "stop": {"target": 0.9}, "code": packed}
    jobs.submit(JobSpec.model_validate(spec))
    for number in range(3):
        models.register("digits", platform.manifest("int8", content=b"%d" % number), None)
    unnamed(platform, 40)
    assert collection.collect(EVERYTHING).artifacts == 2
    assert asked >= {"put", "exists", "size", "leaves", "read_chunk", "stored", "delete", "sweep"}
    assert inside == []
