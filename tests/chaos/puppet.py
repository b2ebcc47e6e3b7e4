"""The real agent, held by strings: it says what it does, and stops at one exact point.

    CHAOS_LOG=FILE CHAOS_STOP=FILE python tests/chaos/puppet.py run --home HOME …

CHAOS_STOP, while it exists, holds a state's class (``Waiting``: Staged, and held there) and where:
``Staged:before`` its write to the
journal, ``after`` it (and so before anything that the state calls for), or ``done``, once that was
begun. There the whole process stops itself (SIGSTOP) and removes the file. ``Downloading:12``
stops before the 12th chunk is written.

CHAOS_STOP.crash, while it exists, holds a version whose first inference ends the process, as a
fault in native code would.

The log has a line of JSON for each thing that counts; it lies outside of the home, as what an
observer saw is not undone by a power cut.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import onnxruntime

from edge_client import cli, journal, runtime, telemetry_buffer, updater
from edge_client.slots import Slot
from edge_client.states import Staged, State, key_of
from schemas.window import About

LOG = Path(os.environ["CHAOS_LOG"])
ORDER = Path(os.environ["CHAOS_STOP"])


def say(what: str, **more: Any) -> None:
    line = json.dumps({"what": what, "pid": os.getpid(), "at": time.time(), **more})
    fd = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, line.encode() + b"\n")
    os.close(fd)


def stop(state: str, where: str) -> None:
    if ORDER.exists() and ORDER.read_text() == f"{state}:{where}":
        ORDER.unlink()
        say("stopped", state=state, where=where)
        os.kill(os.getpid(), signal.SIGSTOP)


def around(owner: Any, name: str) -> Callable[[Callable[..., Any]], None]:
    """Put a function in the place of another; it gets the old one as its first argument."""

    def put(new: Callable[..., Any]) -> None:
        old = getattr(owner, name)
        setattr(owner, name, functools.wraps(old)(functools.partial(new, old)))

    return put


def method(owner: type, name: str) -> Callable[[Callable[..., Any]], None]:
    def put(new: Callable[..., Any]) -> None:
        old = getattr(owner, name)

        @functools.wraps(old)
        def bound(*args: Any, **more: Any) -> Any:
            return new(old, *args, **more)

        setattr(owner, name, bound)

    return put


def class_of(state: State) -> str:
    waits = isinstance(state, Staged) and state.hold is not None
    return "Waiting" if waits else type(state).__name__


def named(slot: Slot | None) -> dict[str, Any] | None:
    return None if slot is None else {"version": slot.version, "sha256": slot.sha256}


@method(journal.Journal, "commit")
def commit(old, self, state, *args, **more):
    name = class_of(state)
    stop(name, "before")
    done = old(self, state, *args, **more)
    offer = getattr(state, "offer", None)
    say(
        "state",
        state=name,
        key=key_of(state),
        sequence=None if offer is None else offer.sequence,
        device=None if offer is None else offer.assignment.device,
        boots=getattr(state, "boots", None),
        outcome=getattr(state, "outcome", None),
    )
    stop(name, "after")
    return done


@method(updater.Updater, "apply")
def apply(old, self, *args, **more):
    done = old(self, *args, **more)
    stop(class_of(self.state), "done")
    return done


@method(runtime.Runtime, "swap")
def swap(old, self, model, loaded):
    say("serves", slot=None if loaded is None else named(loaded.slot))
    return old(self, model, loaded)


@method(runtime.Runtime, "predict")
def predict(old, self, *args, **more):
    fatal = ORDER.with_name(f"{ORDER.name}.crash")
    slot = self.slot()
    if fatal.exists() and slot is not None and str(slot.version) == fatal.read_text():
        say("crashed", version=slot.version)
        os.abort()
    return old(self, *args, **more)


@method(telemetry_buffer.Buffer, "arrived")
def arrived(old, self, ids):
    for row in self.waiting(100_000):
        if row.id in ids:
            boot = msgspec.msgpack.decode(row.about, type=About).boot
            say("acknowledged", boot=boot.hex(), seq=row.window.seq)
    return old(self, ids)


@around(os, "replace")
def replace(old, source, target, **more):
    path = Path(os.fspath(target))
    if path.name != "active.json":
        return old(source, target, **more)
    before, after = active(path), active(Path(os.fspath(source)))
    done = old(source, target, **more)
    say("pointer", before=before, after=after)
    return done


chunks = 0


@around(os, "pwrite")
def pwrite(old, *args):
    global chunks  # noqa: PLW0603 - of this process, since it was ordered to stop
    chunks = chunks + 1 if ORDER.exists() else 0
    stop("Downloading", str(chunks))
    return old(*args)


class Session(onnxruntime.InferenceSession):
    """Says which bytes are loaded into this process."""

    def __init__(self, model, *args, **more):
        data = model if isinstance(model, bytes) else Path(model).read_bytes()
        say("loaded", sha256=hashlib.sha256(data).hexdigest())
        super().__init__(model, *args, **more)


def active(path: Path) -> int | None:
    try:
        models = json.loads(path.read_bytes())["models"]
    except (OSError, ValueError, KeyError):
        return None
    slot = next((one["active"] for one in models.values()), None)
    return None if slot is None else slot["version"]


if __name__ == "__main__":
    onnxruntime.InferenceSession = Session
    home = Path(sys.argv[sys.argv.index("--home") + 1])
    say("starts", pointer=active(home / "active.json"))
    cli.main()
