"""A disk that forgets what was not synced: the shim's environment, and the cut itself."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("durable.c")


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def compile_shim(folder: Path) -> Path:
    """The shim as a shared library."""
    library = folder / "durable.so"
    program = compiler()
    assert program is not None
    flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
    command = [program, *flags, "-o", str(library), str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return library


@dataclass(frozen=True)
class Disk:
    """One folder on a disk of its own, and what of it is durable."""

    library: Path
    home: Path

    @property
    def shadow(self) -> Path:
        return self.home.with_name(f"{self.home.name}.shadow")

    @property
    def full(self) -> Path:
        """While it exists there is no room."""
        return self.home.with_name(f"{self.home.name}.full")

    @property
    def env(self) -> dict[str, str]:
        """Of a process that works on it."""
        self.shadow.mkdir(exist_ok=True)
        return {
            "LD_PRELOAD": str(self.library),
            "DURABLE_HOME": str(self.home.resolve()),
            "DURABLE_SHADOW": str(self.shadow.resolve()),
            "DURABLE_FULL": str(self.full),
        }

    def cut(self) -> list[str]:
        """Lose all that was not synced. Nothing may run on it. Returns what was lost."""
        root = (self.shadow / "root").read_text()
        before = _listing(self.home)
        made = self.home.with_name(f"{self.home.name}.after")
        made.mkdir(mode=0o700)
        self._fill(made, root)
        shutil.rmtree(self.home)
        shutil.rmtree(self.shadow)
        made.rename(self.home)
        after = _listing(self.home)
        return sorted(str(name) for name in before if after.get(name) != before[name])

    def _fill(self, folder: Path, key: str) -> None:
        names = self.shadow / f"{key}.names"
        if not names.exists():
            return
        for line in names.read_text().splitlines():
            kind, mode, entry, name = line.split(" ", 3)
            path = folder / name
            if kind == "d":
                path.mkdir()
                self._fill(path, entry)
            else:
                data = self.shadow / f"{entry}.data"
                path.write_bytes(data.read_bytes() if data.exists() else b"")
            path.chmod(int(mode, 8))


def _listing(home: Path) -> dict[Path, bytes | None]:
    return {
        path.relative_to(home): path.read_bytes() if path.is_file() else None
        for path in home.rglob("*")
    }
