"""The network between a device and the broker, as bad as a test wants it.

Bytes are never changed: TLS would notice, and the connection end like any other. They come late,
slowly, only so many of them, or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

_BLOCK = 16 * 1024
_QUEUE = 64


@dataclass(frozen=True, kw_only=True)
class Weather:
    """How a line is.

    refuse: new connections end at once. swallow: what is sent vanishes, and nobody is told.
    delay: seconds each way. rate: bytes a second each way. after: bytes until the next cut.
    """

    refuse: bool = False
    swallow: bool = False
    delay: float = 0.0
    rate: float | None = None
    after: int | None = None


FAIR = Weather()


@dataclass(eq=False)
class Line:
    """One device's way to the broker: it listens on ``port``."""

    proxy: Proxy
    port: int = 0
    weather: Weather = FAIR
    bytes: int = 0
    connections: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _server: asyncio.Server | None = None

    def set(self, weather: Weather) -> None:
        """Change the weather. Connections that lost bytes do not outlive it."""
        self.proxy.do(lambda: self._set(weather))

    def cut(self) -> None:
        """End what is connected, without a word."""
        self.proxy.do(self._cut)

    def _set(self, weather: Weather) -> None:
        lossy = self.weather.swallow and not weather.swallow
        self.weather = weather
        if lossy or weather.refuse:
            self._cut()

    def _cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.weather.refuse:
            writer.transport.abort()
            return
        try:
            there = await asyncio.open_connection("127.0.0.1", self.proxy.target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, there[1]}
        self._open |= both
        ways = (self._carry(reader, there[1]), self._carry(there[0], writer))
        tasks = [asyncio.ensure_future(way) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._open -= both
        for one in both:
            one.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUE)
        clock = asyncio.get_running_loop().time

        async def take() -> None:
            while data := await reader.read(_BLOCK):
                if not self.weather.swallow:
                    await queue.put((clock() + self.weather.delay, data))
            await queue.put((0, b""))

        taking = asyncio.ensure_future(take())
        try:
            while True:
                due, data = await queue.get()
                if not data:
                    return
                await asyncio.sleep(max(0.0, due - clock()))
                if self.weather.rate is not None:
                    await asyncio.sleep(len(data) / self.weather.rate)
                if self._spent(len(data)):
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            return
        finally:
            taking.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await taking

    def _spent(self, count: int) -> bool:
        """Count bytes; whether the line breaks under them, which it does once."""
        self.bytes += count
        left = self.weather.after
        if left is None:
            return False
        if left <= count:
            self.weather = replace(self.weather, after=None)
            return True
        self.weather = replace(self.weather, after=left - count)
        return False


class Proxy:
    """All lines to one broker, carried by one thread."""

    def __init__(self, target: int) -> None:
        """target: the broker's port on loopback."""
        self.target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()

    def line(self) -> Line:
        line = Line(self)
        asyncio.run_coroutine_threadsafe(line.listen(), self._loop).result(5)
        return line

    def do(self, act: Callable[[], None]) -> None:
        """Run something on the proxy's thread, and wait for it."""

        async def acting() -> None:
            act()

        asyncio.run_coroutine_threadsafe(acting(), self._loop).result(5)

    def close(self) -> None:
        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
