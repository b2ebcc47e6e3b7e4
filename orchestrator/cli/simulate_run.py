"""What ``argosy simulate`` does: reads the profile, lets the devices in, shows how they fare."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from orchestrator.cli import console
from orchestrator.cli.authored import plain
from orchestrator.cli.yamlfile import Document, load
from orchestrator.client import Argosy
from orchestrator.client.profile import checked_url, home_folder
from orchestrator.errors import ArgosyError, Invalid, Unavailable
from schemas.enroll import TokenRequest
from schemas.rollout import RolloutState

if TYPE_CHECKING:
    from orchestrator.simulator.fleet import Fleet
    from orchestrator.simulator.profile import Kind, Profile

_TOKEN_SECONDS = 3600
_STOPPED = {RolloutState.PAUSED, RolloutState.ABORTED, RolloutState.ROLLING_BACK}
_LIVE_SECONDS, _PLAIN_SECONDS, _ENROLL_SECONDS = 0.5, 10.0, 5.0
_RUNNING = threading.Event()
"""Set once the fleet runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The command's options."""

    devices: int
    profile: str
    seed: int
    token: str | None
    server: str | None
    seconds: float | None
    state: Path | None
    connects: float
    figures: Path | None
    home: Path | None


def print_profile(name: str) -> int:
    """Print a profile as YAML that may be edited."""
    content = read_profile(name).model_dump(mode="json", exclude_none=True)
    sys.stdout.write(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return 0


def read_profile(name: str) -> Profile:
    """A built-in profile, or that of a file.

    Raises:
        Invalid: there is no such profile, or the file has a fault; its line is named.
        Unavailable: what the simulator needs is not installed.
    """
    _need_extra()
    from orchestrator.simulator.builtin import BUILT_IN
    from orchestrator.simulator.profile import Profile

    if name in BUILT_IN:
        return BUILT_IN[name]
    path = Path(name).expanduser()
    if not path.exists():
        detail = f"there is no profile {name!r}"
        raise Invalid(detail, hint=f"one of {', '.join(BUILT_IN)}, or the path of a file in YAML")
    document = load(path)
    try:
        return Profile.model_validate(document.value)
    except ValidationError as error:
        raise _fault(document, error) from None


def _fault(document: Document, error: ValidationError) -> Invalid:
    """The first fault in the file, with its line."""
    every = error.errors(include_url=False)
    places = [one["loc"] for one in every]
    # A list whose item is wrong counts as too short, which says nothing more.
    inner = [
        one
        for one in every
        if not any(len(p) > len(one["loc"]) and p[: len(one["loc"])] == one["loc"] for p in places)
    ]
    found = sorted(inner, key=lambda one: document.line(one["loc"]))
    first = found[0]
    kinds = {"offline", "slow", "flapping", "wrong_clock", "lost_reports", "duplicated_reports"}
    # pydantic names the kind of a fault as if it were a key.
    shown = ".".join(str(part) for part in first["loc"] if part not in kinds)
    where = document.where(tuple(part for part in first["loc"] if part not in kinds))
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    detail = f"{where}: {shown}: {plain(first)}{more}" if shown else f"{where}: {plain(first)}"
    return Invalid(detail, hint="`argosy simulate --profile mixed --show` prints one to start from")


def _need_extra() -> None:
    lacking = [name for name in ("cryptography", "msgspec", "numpy") if find_spec(name) is None]
    if lacking:
        detail = f"the simulator needs {lacking[0]}, which is not installed"
        raise Unavailable(detail, hint="install it with: pip install 'argosy[server]'")


def simulate_fleet(asked: Asked) -> int:
    """Run a fleet until its time is over or a signal comes; print the summary."""
    profile = read_profile(asked.profile)
    from orchestrator.simulator.fleet import Fleet, Plan, admit
    from orchestrator.simulator.identity import Folder

    argosy, server = _platform(asked)
    folder = Folder(asked.state or (asked.home or home_folder()) / "simulator")
    plan = Plan(
        server=server,
        folder=folder,
        devices=asked.devices,
        profile=profile,
        seed=asked.seed,
        seconds=asked.seconds,
        connects=asked.connects,
    )
    stop = threading.Event()
    with closing(folder), _until_told(stop):
        identities = admit(plan, _Tokens(asked, argosy), _Enrolling())
        fleet = Fleet(plan, identities, stop)
        if argosy is not None:
            threading.Thread(target=_follow, args=(argosy, fleet), daemon=True).start()
        summary = fleet.run(_Line(asked.figures))
    _write(asked.figures, summary)
    sys.stdout.write(json.dumps(summary, indent=2) + "\n")
    return 0


def _write(path: Path | None, view: Mapping[str, Any]) -> None:
    """Put the figures into a file, whole or not at all."""
    if path is None:
        return
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(json.dumps(view, indent=2) + "\n")
        part.replace(path)
    except OSError as error:
        detail = f"{path} cannot be written: {(error.strerror or str(error)).lower()}"
        raise Invalid(detail, hint="name another file with --figures") from error


@contextmanager
def _until_told(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run in good order: the summary is what it was for.

    Before it runs, while devices enroll, they end the command.
    """

    def told(_number: int, _frame: object) -> None:
        if stop.is_set() or not _RUNNING.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {which: signal.signal(which, told) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        _RUNNING.clear()
        for which, handler in before.items():
            signal.signal(which, handler)


def _platform(asked: Asked) -> tuple[Argosy | None, str]:
    """The operator's client, where there are credentials, and the platform's address.

    With a token of one's own and an address no credentials are needed.
    """
    if asked.token is not None and asked.server is not None:
        return None, checked_url(asked.server)
    argosy = Argosy.from_profile(asked.home)
    argosy.health()
    return argosy, checked_url(asked.server or argosy.url)


class _Tokens:
    """Join tokens: the one that was given, or one for each class."""

    def __init__(self, asked: Asked, argosy: Argosy | None) -> None:
        self._asked, self._argosy = asked, argosy

    def __call__(self, kind: Kind, count: int) -> str:
        if self._asked.token is not None:
            return self._asked.token
        if self._argosy is None:
            detail = "no join token"
            raise Invalid(detail, hint="give one with --token, or sign in as an operator")
        request = TokenRequest(
            device_class=kind.name,
            tags=kind.tags,
            max_uses=count,
            ttl_seconds=_TOKEN_SECONDS,
            note="argosy simulate",
        )
        return self._argosy.tokens.create(request).token


class _Enrolling:
    """Tells how many devices are let in, now and then."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, done: int, count: int) -> None:
        now = time.monotonic()
        if done == count or now - self._last > _ENROLL_SECONDS:
            self._last = now
            console.say(f"enrolled {done:,} of {count:,} devices")


class _Line:
    """The fleet in one line, again and again on a terminal, now and then elsewhere."""

    def __init__(self, figures: Path | None) -> None:
        self._last = self._written = 0.0
        self._offers = (0.0, 0)
        self._figures = figures

    def __call__(self, fleet: Fleet) -> None:
        _RUNNING.set()
        now = time.monotonic()
        if now - self._written >= 1.0:
            self._written = now
            _write(self._figures, fleet.view())
        if now - self._last < (_LIVE_SECONDS if console.is_live() else _PLAIN_SECONDS):
            return
        self._last = now
        text = self._text(fleet, now)
        if console.is_live():
            sys.stderr.write(f"\r\x1b[2K{text}")
            sys.stderr.flush()
        else:
            console.say(text)

    def _text(self, fleet: Fleet, now: float) -> str:
        view = fleet.view()
        offers = sum(one["count"] for one in view["offers"].values())
        then, before = self._offers
        self._offers = now, offers
        rate = (offers - before) / (now - then) if then else 0.0
        states = "  ".join(f"{state} {count:,}" for state, count in view["states"].items())
        return (
            f"{console.duration(view['seconds'])}  online {view['online']:,}/{view['devices']:,}"
            f"  offers {offers:,} ({rate:,.0f}/s)  windows {view['windows']:,}  {states}"
        ).rstrip()


def _follow(argosy: Argosy, fleet: Fleet) -> None:
    """Note when rollouts are stopped, so that the summary can say how long devices took to hear.

    When, is by the platform's clock: the figure is right as far as this machine's agrees with it.
    """
    with suppress(ArgosyError):
        for event in argosy.events(kind="rollout"):
            if event.kind == "rollout" and event.data.get("state") in _STOPPED and fleet.hub:
                fleet.hub.figures.stopped(event.subject, event.at.timestamp())
