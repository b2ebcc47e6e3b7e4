"""Processes that may end while a test looks at them."""

from __future__ import annotations

import contextlib

import psutil


def command_of(process: psutil.Process) -> str:
    """Its command line in one string; empty when it has ended, reaped or not."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline())
    return ""
