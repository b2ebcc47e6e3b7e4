"""What a transfer is compared with: other ways to bring the same bytes to a device.

All of them go through a broker (or a server) with the certificates of the platform that is
measured, and with its settings where they matter: TCP_NODELAY, mutual TLS.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import queue
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import psutil
from aiohttp import web
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks._transfer_fleet import LOOPBACK, free_port, until
from edge_client.identity import load_identity
from edge_client.settings import Home as DeviceHome
from orchestrator.home import Home

CHUNK = 64 * 1024
LIMIT = 300.0
_SUBSCRIBED = b" bench\n"
"""How the broker's log ends the line of a subscription."""
_INDEX = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files: the authority, and a device's certificate and key."""

    ca: Path
    certificate: Path
    key: Path


def certificates(device: Path) -> Certificates:
    """Of an enrolled device, by its home folder."""
    found = load_identity(DeviceHome(device))
    return Certificates(Path(found.ca), Path(found.certificate), Path(found.key))


@dataclass(frozen=True, slots=True)
class Broker:
    """A mosquitto beside the platform's: any size of message, nothing forbidden."""

    process: subprocess.Popen[bytes]
    tls_port: int
    plain_port: int

    def cpu(self) -> float:
        """Seconds so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)


@contextmanager
def broker(folder: Path, home: Home) -> Iterator[Broker]:
    """Start one with the server certificate of a platform."""
    tls, plain = free_port(), free_port()
    conf = folder / "peer.conf"
    conf.write_text(
        "per_listener_settings true\nset_tcp_nodelay true\nmax_queued_messages 100000\n"
        "log_dest stderr\nlog_type subscribe\n"
        f"listener {tls} {LOOPBACK}\nallow_anonymous true\nrequire_certificate true\n"
        f"cafile {home.ca_pem}\ncertfile {home.server_pem}\nkeyfile {home.server_key}\n"
        f"listener {plain} {LOOPBACK}\nallow_anonymous true\n"
        f"user {getpass.getuser()}\n"
    )
    log = (folder / "peer.log").open("ab")
    process = subprocess.Popen([_found("mosquitto"), "-c", str(conf)], stdout=log, stderr=log)
    try:
        until(lambda: listens(plain), "the peers' broker", 10)
        yield Broker(process, tls, plain)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def listens(port: int) -> bool:
    """Whether somebody answers there."""
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def _found(program: str) -> str:
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    found = shutil.which(program, path=path)
    if found is None:
        msg = f"{program} is not installed: its packages are mosquitto, mosquitto-clients and curl"
        raise FileNotFoundError(msg)
    return found


def _options(port: int, tls: Certificates | None) -> list[str]:
    found = ["-h", LOOPBACK, "-p", str(port), "-V", "5", "-t", "bench"]
    if tls is not None:
        found += ["--cafile", str(tls.ca), "--cert", str(tls.certificate), "--key", str(tls.key)]
    return found


def mosquitto(
    folder: Path, file: Path, port: int, tls: Certificates | None, receivers: int = 1
) -> float:
    """``mosquitto_pub`` to so many ``mosquitto_sub``: seconds until the last has all of it."""
    options, log = _options(port, tls), folder / "peer.log"
    outs = [folder / f"sub-{number}.out" for number in range(receivers)]
    wanted = log.read_bytes().count(_SUBSCRIBED) + receivers
    subs = []
    for out in outs:
        with out.open("wb") as sink:
            command = [_found("mosquitto_sub"), *options, "-C", "1", "-N"]
            subs.append(subprocess.Popen(command, stdout=sink))
    until(lambda: log.read_bytes().count(_SUBSCRIBED) >= wanted, "the subscriptions", 60)
    begun = time.monotonic()
    subprocess.run([_found("mosquitto_pub"), *options, "-f", str(file)], check=True)
    for sub in subs:
        sub.wait(LIMIT)
    seconds = time.monotonic() - begun
    size = file.stat().st_size
    for out in outs:
        assert out.stat().st_size >= size, "mosquitto_sub has not all of it"
        out.unlink()
    return seconds


def stop_and_wait(file: Path, out: Path, port: int, server_port: int, tls: Certificates) -> float:
    """One chunk asked for at a time (AWS IoT's file streams, ThingsBoard's firmware): seconds.

    The sender is a process of its own, as the receiver is: this one.
    """
    sender = subprocess.Popen(
        [sys.executable, "-m", "benchmarks._transfer_peers", str(file), str(server_port)],
        stdout=subprocess.PIPE,
    )
    try:
        assert sender.stdout is not None
        sender.stdout.readline()
        return _receive(file.stat().st_size, out, port, tls)
    finally:
        sender.terminate()
        sender.wait(10)


def _client(port: int, tls: Certificates | None) -> mqtt.Client:
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    if tls is not None:
        context = ssl.create_default_context(cafile=str(tls.ca))
        context.load_cert_chain(str(tls.certificate), str(tls.key))
        client.tls_set_context(context)
    client.on_socket_open = _no_delay
    client.connect(LOOPBACK, port)
    return client


def _no_delay(_client: mqtt.Client, _data: object, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _receive(size: int, out: Path, port: int, tls: Certificates) -> float:
    came: queue.Queue[bytes] = queue.Queue()
    ready = threading.Event()
    client = _client(port, tls)
    client.on_message = lambda _c, _u, message: came.put(bytes(message.payload))
    client.on_subscribe = lambda *_: ready.set()
    client.subscribe("bench/chunk", qos=0)
    client.loop_start()
    ready.wait(10)
    begun, whole = time.monotonic(), hashlib.sha256()
    with out.open("wb") as file:
        for index in range(-(-size // CHUNK)):
            client.publish("bench/ask", _INDEX.pack(index), qos=1)
            data = came.get(timeout=60)
            whole.update(data)
            file.write(data)
    seconds = time.monotonic() - begun
    client.disconnect()
    client.loop_stop()
    out.unlink()
    return seconds


def _send(file: Path, port: int) -> None:
    """Answer each request for a chunk, for ever."""
    data = file.read_bytes()
    client = _client(port, None)

    def answer(_c: object, _u: object, message: mqtt.MQTTMessage) -> None:
        (index,) = _INDEX.unpack(message.payload)
        client.publish("bench/chunk", data[index * CHUNK : (index + 1) * CHUNK], qos=0)

    client.on_message = answer
    client.on_subscribe = lambda *_: print("ready", flush=True)
    client.subscribe("bench/ask", qos=1)
    client.loop_forever()


@contextmanager
def http(file: Path, home: Home, *, tls: bool) -> Iterator[str]:
    """Aiohttp serving one file (by sendfile, where there is no TLS): its address."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks._transfer_peers", str(file), str(port), "http"]
    if tls:
        command += [str(home.server_pem), str(home.server_key)]
    process = subprocess.Popen(command)
    try:
        until(lambda: listens(port), "the peers' HTTP server", 20)
        yield f"{'https' if tls else 'http'}://{LOOPBACK}:{port}/file"
    finally:
        process.terminate()
        process.wait(10)


def download(url: str, out: Path, tls: Certificates) -> float:
    """Curl of an address: seconds."""
    begun = time.monotonic()
    command = [_found("curl"), "-sSf", "--cacert", str(tls.ca), "-o", str(out), url]
    subprocess.run(command, check=True, timeout=LIMIT)
    seconds = time.monotonic() - begun
    out.unlink()
    return seconds


def _serve(file: Path, port: int, pem: Sequence[str]) -> None:
    context = None
    if pem:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pem)
    app = web.Application()

    async def answer(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(file)

    app.router.add_get("/file", answer)
    web.run_app(app, host=LOOPBACK, port=port, ssl_context=context, print=None)


if __name__ == "__main__":
    path, number, *more = sys.argv[1:]
    if more:
        _serve(Path(path), int(number), more[1:])
    else:
        _send(Path(path), int(number))
