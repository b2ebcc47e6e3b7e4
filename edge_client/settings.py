"""Where things lie in a device's home, and what a run can be told."""

from __future__ import annotations

import contextlib
import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from edge_client.files import fsync_folder

MIB = 1024**2
GIB = 1024**3

BUILT = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
"""No update happens while the clock is before this: it has not been set yet."""


@dataclass(frozen=True, slots=True)
class Home:
    """The layout of a device's home folder."""

    root: Path

    @property
    def identity(self) -> Path:
        """The folder with the key, the certificate and what to trust."""
        return self.root / "identity"

    @property
    def enrollment(self) -> Path:
        """The key and the request of an enrollment that is not over."""
        return self.root / "enrollment"

    @property
    def renewal(self) -> Path:
        """The key and the request of a renewal that is not over."""
        return self.root / "renewal"

    @property
    def metadata(self) -> Path:
        """Trust metadata that was verified; a copy, on which nothing rests."""
        return self.root / "metadata"

    @property
    def blobs(self) -> Path:
        """Complete files, named by their SHA-256."""
        return self.root / "models" / "blobs"

    @property
    def partial(self) -> Path:
        """Files on their way, with the bitmap of what has arrived."""
        return self.root / "models" / "partial"

    @property
    def leaves(self) -> Path:
        """Chunk digests of files, named as these; what is lost is computed again."""
        return self.root / "models" / "leaves"

    @property
    def manifests(self) -> Path:
        """Manifests, named by their SHA-256."""
        return self.root / "models" / "manifests"

    @property
    def pointer(self) -> Path:
        """Which model is active and which one is its fallback."""
        return self.root / "active.json"

    @property
    def journal(self) -> Path:
        """The update's state, reports to be sent, the sequence floor (SQLite)."""
        return self.root / "journal.db"

    @property
    def telemetry(self) -> Path:
        """Windows to be sent (SQLite)."""
        return self.root / "telemetry.db"

    @property
    def live_counts(self) -> Path:
        """Bare counts of the processes that infer, a file each."""
        return self.root / "live"

    @property
    def samples(self) -> Path:
        """Samples for the operator (SQLite), where the operator of the device opted in."""
        return self.root / "samples.db"

    @property
    def bench(self) -> Path:
        """Bench reports, sent and to be sent (SQLite)."""
        return self.root / "bench.db"

    @property
    def bench_work(self) -> Path:
        """An empty folder in which variants are measured; what a kill leaves goes next time."""
        return self.root / "bench"

    @property
    def bench_lock(self) -> Path:
        """Held while variants are measured."""
        return self.root / "bench.lock"

    @property
    def times(self) -> Path:
        """How long inferences of each model take here; nothing but comparisons rests on it."""
        return self.root / "times.json"

    @property
    def hung(self) -> Path:
        """What hung when the watchdog ended the agent, until the next start has read it."""
        return self.root / "hung.json"

    @property
    def rollback(self) -> Path:
        """What ``argosy-edge rollback`` asks the running agent for."""
        return self.root / "rollback.json"

    @property
    def rolled_back(self) -> Path:
        """The agent's answer to it."""
        return self.root / "rollback.answer.json"

    @property
    def wish(self) -> Path:
        """What ``argosy-edge defer`` or ``proceed`` asks the running agent for."""
        return self.root / "wish.json"

    @property
    def wished(self) -> Path:
        """The agent's answer to it."""
        return self.root / "wish.answer.json"

    @property
    def lock(self) -> Path:
        """Held by the agent while it runs."""
        return self.root / "agent.lock"

    @property
    def live(self) -> Path:
        """What the running agent says about itself, for ``status``."""
        return self.root / "agent.json"

    def create(self) -> None:
        """Make the folders, durably; only the owner may look inside.

        One that cannot be made below a home that is there is left out: on a full disk, or one
        that became read-only, what is installed serves on.
        """
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.blobs, self.partial, self.leaves, self.manifests):
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # What is written in a folder is durable only if the folder's own name is; and that it is
        # there does not say that a start before this one came as far as this.
        for folder in (self.blobs.parent, self.root, self.root.parent):
            with contextlib.suppress(OSError):
                fsync_folder(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """The options of ``argosy-edge run``.

    rate: samples a second. window: seconds between telemetry windows; None as
    ``edge_client.cadence`` says. bandwidth: bytes a second to fetch at most, None for no limit.
    disk_quota: bytes for models. stage_seconds: how long a trial load may take. https: fetch by
    links of the server where it gives them. bench: measure each variant once after it became
    active. once: end after one update. hang_seconds: after which the watchdog ends an agent in
    which something makes no progress. source_model: the only one that samples of ``source`` go
    to. samples: inputs an hour of each model and stream that the operator gets, by opt-in.

    threads, provider, provider_fallback, spin, arena: of sessions (``edge_client.sessions``).
    serve, serve_grpc: addresses of the local server. max_batch: samples in one inference;
    max_delay: seconds that a request waits for others; queue: requests that may wait.
    """

    source: Path | None = None
    source_model: str | None = None
    rate: float = 10.0
    window: float | None = None
    bandwidth: int | None = None
    disk_quota: int = 2 * GIB
    telemetry_windows: int = 20_000
    stage_seconds: float = 120.0
    bench: bool = True
    https: bool = False
    once: bool = False
    hang_seconds: float = 60.0
    samples: int = 0
    threads: int = 1
    provider: str | None = None
    provider_fallback: bool = False
    spin: bool = False
    arena: bool = True
    serve: tuple[str, ...] = ()
    serve_grpc: tuple[str, ...] = ()
    max_batch: int = 32
    max_delay: float = 0.0
    queue: int = 256
