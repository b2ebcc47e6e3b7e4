"""A fast download goes on by nudges alone: waiting for a timer would cost more than all of it."""

from __future__ import annotations

import os
import random
from collections import deque

import pytest

from edge_client.fetch import Fetcher
from edge_client.inlet import Inlet
from edge_client.network import Network
from edge_client.settings import GIB, Home
from edge_client.store import Store
from schemas.transfer import Ask, Chunk, Need, Reply, encode_chunk, leaves_of, tag_of
from tests.fakes.edge_models import blocks, model_file

DATA = os.urandom(300 * 64 * 1024)
FILE = model_file("model.onnx", DATA)
CHUNKS = blocks(DATA)
ROUND_TRIP = 1e-3
PACES = (1e-4, 1.5e-4, 5e-4)
"""Seconds for a chunk: between them the window grows and shrinks."""

LEAVES = b"".join(leaves_of(CHUNKS)).hex()


class World:
    """A server at once, a line whose pace changes by seed, and an agent that is late by some."""

    def __init__(self, folder, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - replays
        self.now, self.nudges, self.waits = 50.0, 0, 0
        self.line: deque[tuple[int, int]] = deque()
        self.inlet = Inlet()
        home = Home(folder)
        home.create()
        network = Network(
            need=self.need,
            ask=self.ask,
            inlet=self.inlet,
            clock=lambda: self.now,
            nudge=self.nudge,
        )
        store = Store(home, quota=GIB)
        self.asked: list[Ask] = []
        self.fetcher = Fetcher(network, store, [FILE], first_batch=0, owner="exe.1")

    def nudge(self) -> None:
        self.nudges += 1

    def ask(self, ask: Ask) -> bool:
        self.asked.append(ask)
        return True

    def need(self, need: Need) -> bool:
        if not self.line:
            self.now += ROUND_TRIP
        self.line.extend((need.batch, i) for first, last in need.ranges for i in range(first, last))
        return True

    def run(self) -> None:
        self.fetcher.pump(self.now)
        reply = Reply(kind="leaves", sha256=FILE.sha256, leaves=LEAVES, size=len(DATA))
        self.fetcher.reply(reply, self.now)
        pace = 1e-4
        while not self.fetcher.complete:
            if self.random.random() < 0.3:
                pace = self.random.choice(PACES)
            late = self.random.randrange(6)
            while self.line and (late or not self.nudges):
                late -= bool(self.nudges)
                batch, index = self.line.popleft()
                self.now += pace
                chunk = Chunk(batch, index, tag_of(FILE.sha256), CHUNKS[index])
                self.inlet.take(encode_chunk(chunk))
            if not self.nudges:  # nothing is on its way, and nobody says so
                self.waits += 1
                self.now = max(self.now, self.fetcher.due(self.now))
            self.nudges = 0
            self.fetcher.pump(self.now)


@pytest.mark.parametrize("seed", range(8))
def test_no_timer_is_waited_for_while_chunks_come(tmp_path, seed):
    world = World(tmp_path / "home", seed)
    world.run()
    assert world.waits <= 1, "more than the first answer and the end had to be waited for"
