"""What tests of user code on Ray share: packages to install, and a look at processes."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import psutil

from workers.agent.processes import marked
from workers.order import MARK


def wheel(folder: Path, name: str, version: str, files: dict[str, str], needs: str = "") -> None:
    """A package of pure Python, as an index would serve it."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Dist: {needs}\n" if needs else ""
    kind = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as out:
        rows = {**files, f"{info}/METADATA": metadata, f"{info}/WHEEL": kind}
        for path, text in rows.items():
            out.writestr(path, text)
        out.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*rows, f"{info}/RECORD"]))


def until(condition: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def runs(name: str) -> list[psutil.Process]:
    found = []
    for process in marked(MARK, name):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def environ_of(pid: int) -> dict[str, str]:
    rows = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(row.split("=", 1) for row in rows if "=" in row)


def forget_token() -> None:
    """Ray reads its token once per process; a test of a second cluster needs the second one."""
    from ray._private.authentication_test_utils import reset_auth_token_state

    reset_auth_token_state()
