"""A process that serves, counts what it served in a file of its own, and may be killed anywhere.

    python -m tests.fakes.edge_counter HOME TALLY SEED [STOP]

It writes to TALLY, before each inference is counted and after, how many there were. STOP is the
number of the SQL statement or system call of ours before which it kills itself; there is no cut
of the figures in between that a kill could not come at.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import sqlite3
import struct
import sys
from pathlib import Path

from edge_client import telemetry_buffer
from edge_client.machine import Clocks
from edge_client.recorder import Recorder
from edge_client.settings import Home
from edge_client.telemetry import Windows
from tests.fakes.edge_windows import counted, serve


class Fuse:
    """Kills the process before the n-th step that writes."""

    def __init__(self, at: int) -> None:
        self.left = at

    def burn(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def guard(fuse: Fuse) -> None:
    """Every statement of SQLite and every removal of a file burns the fuse."""
    opened = telemetry_buffer.open_database

    def traced(*args, **more):
        db: sqlite3.Connection = opened(*args, **more)
        db.set_trace_callback(lambda _: fuse.burn())
        return db

    telemetry_buffer.open_database = traced
    unlink = Path.unlink

    def burning(self, *args, **more):
        fuse.burn()
        unlink(self, *args, **more)
        fuse.burn()

    Path.unlink = burning


def main() -> None:
    home, tally, seed = Home(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3])
    fuse = Fuse(int(sys.argv[4]))
    guard(fuse)
    keeper, windows = begin(home)
    keeper.recover()
    rng = random.Random(seed)  # noqa: S311 - by seed
    n = errors = 0
    models = [counted(1), counted(2)]
    with tally.open("ab", buffering=0) as file:
        while True:
            for _ in range(rng.randrange(40)):
                some = rng.randrange(1, 4)
                if rng.random() < 0.2:
                    windows.failed(rng.choice(models), some)
                    errors += some
                else:
                    serve(windows, rng.choice(models), n=some)
                n += some
                file.write(struct.pack("<QQ", n, errors))
            keeper.cut()
            if rng.random() < 0.1:
                keeper.close()
                keeper.buffer.close()
                keeper, windows = begin(home)
                keeper.recover()


def begin(home: Home) -> tuple[Recorder, Windows]:
    windows = Windows(Clocks())
    buffer = telemetry_buffer.Buffer(home.telemetry)
    return Recorder(home, boot=secrets.token_hex(16), windows=windows, buffer=buffer), windows


if __name__ == "__main__":
    main()
