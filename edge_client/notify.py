"""Tells the service manager how the agent is: the protocol of sd_notify(3), and no library.

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html: datagrams of lines
``KEY=value`` to the socket that ``$NOTIFY_SOCKET`` names. Without one nothing is sent.
"""

from __future__ import annotations

import os
import socket

READY, WATCHDOG, STOPPING = "READY=1", "WATCHDOG=1", "STOPPING=1"


def status(text: str) -> str:
    """One line for ``systemctl status``."""
    return "STATUS=" + " ".join(text.split())[:500]


def notify(*lines: str) -> bool:
    """Send a message; False when nobody listens. It never fails, and never waits."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return False
    address = "\0" + name[1:] if name.startswith("@") else name
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(0)
            sender.sendto("\n".join(lines).encode(), address)
    except OSError:
        return False
    return True
