"""Links by which devices fetch files over HTTPS: given out, and honoured."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

from orchestrator.domain.budget import Budget
from orchestrator.domain.link import LIFETIME_SECONDS, Link, Verdict, judge, path_of, sign
from orchestrator.errors import Forbidden, NotFound, TooMany
from orchestrator.services.ports import Clock
from schemas.transfer import HttpsOffer

MAX_DOWNLOADS = 200
"""At once, by all devices; more are asked to come back."""

MAX_OF_DEVICE = 2


class LinkService:
    """Gives out links, and says which of them hold.

    Args:
        clock: the time, in UTC.
        key: 32 bytes, the same for all servers of one platform.
        serves: whether devices may fetch a file.
        admits: whether a device is active.
        offering: whether new links are given out; those given are honoured either way.
        rate: bytes a second that all downloads together may take, beside what is sent over
            MQTT; None is without limit.
        monotonic: seconds, never going back.
    """

    def __init__(
        self,
        clock: Clock,
        key: bytes,
        *,
        serves: Callable[[str], bool],
        admits: Callable[[str], bool],
        offering: bool = True,
        rate: float | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._key = clock, key
        self._serves, self._admits = serves, admits
        self._offering = offering
        self._budget, self._monotonic = Budget(rate), monotonic
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()

    def offer(self, device: str, sha256: str) -> HttpsOffer | None:
        """A link to a file that ``device`` may fetch; None where none are given out."""
        if not self._offering:
            return None
        link = Link(sha256, device, int(self._clock().timestamp()) + LIFETIME_SECONDS)
        path = path_of(link, sign(self._key, link))
        return HttpsOffer(path=path, expires_in=LIFETIME_SECONDS)

    def check(self, link: Link, signature: str) -> None:
        """See that a link holds.

        Raises:
            Forbidden: it is forged or has expired, or its device is not active.
            NotFound: devices may not fetch that file, or not any more.
            Unavailable: the database does not answer.
        """
        verdict = judge(self._key, link, signature, self._clock().timestamp())
        if verdict is Verdict.FORGED:
            msg = "this link was not signed by this server"
            raise Forbidden(msg, hint="ask for the file's leaves again: the answer has a new link")
        if verdict is Verdict.EXPIRED:
            msg = "this link has expired"
            raise Forbidden(msg, hint="ask for the file's leaves again: the answer has a new link")
        if not self._admits(link.device):
            msg = f"{link.device} is not active"
            raise Forbidden(msg)
        if not self._serves(link.sha256):
            msg = "no version that is not revoked has such a file"
            raise NotFound(msg)

    def stands(self, link: Link) -> bool:
        """Whether a download under way may go on: the device and the file still count."""
        return self._admits(link.device) and self._serves(link.sha256)

    def begin(self, device: str) -> None:
        """Count a download; ``end`` takes it back.

        Raises:
            TooMany: there are too many, of this device or of all.
        """
        with self._lock:
            crowded = self._under_way.total() >= MAX_DOWNLOADS
            if crowded or self._under_way[device] >= MAX_OF_DEVICE:
                whose = "all devices" if crowded else "this device"
                msg = f"too many downloads of {whose} are under way"
                raise TooMany(msg, hint="wait a few seconds")
            self._under_way[device] += 1

    def wait(self) -> float:
        """Seconds until the next piece of any download may be sent; 0 now."""
        with self._lock:
            return self._budget.wait(self._monotonic())

    def sent(self, size: int) -> None:
        """Account for a piece of so many bytes."""
        with self._lock:
            self._budget.spend(size, self._monotonic())

    def end(self, device: str) -> None:
        """A download is over."""
        with self._lock:
            self._under_way[device] -= 1
            if self._under_way[device] <= 0:
                del self._under_way[device]
