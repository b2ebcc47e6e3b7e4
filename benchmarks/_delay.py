"""A TCP proxy that lets every byte arrive later: a long way, without a network for it.

``python -m benchmarks._delay LISTEN TARGET SECONDS`` delays by half of it in each direction. What
is under way is not limited, so the rate stays that of the machine.
"""

from __future__ import annotations

import asyncio
import socket
import sys

READ_BYTES = 256 * 1024


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def later() -> None:
        while True:
            at, data = await waiting.get()
            await asyncio.sleep(max(0.0, at - loop.time()))
            if not data:
                writer.close()
                return
            writer.write(data)

    sending = asyncio.create_task(later())
    try:
        while True:
            data = await reader.read(READ_BYTES)
            waiting.put_nowait((loop.time() + delay, data))
            if not data:
                break
    except ConnectionError:
        waiting.put_nowait((loop.time(), b""))
    await sending


async def _serve(port: int, target: int, delay: float) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target, limit=READ_BYTES)
        for stream in (writer, back):
            sock = stream.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ways = (_pass(reader, back, delay), _pass(there, writer, delay))
        await asyncio.gather(*ways, return_exceptions=True)

    server = await asyncio.start_server(accept, "127.0.0.1", port, limit=READ_BYTES)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    listen, to, round_trip = sys.argv[1:]
    asyncio.run(_serve(int(listen), int(to), float(round_trip) / 2))
