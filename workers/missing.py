"""A module that could not be imported, and what its reader can do about it."""

from __future__ import annotations

import re
from pathlib import Path

FILE = "requirements.txt"
MAX_READ = 256 * 1024

OTHER_NAMES = {
    "sklearn": "scikit-learn",
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "skimage": "scikit-image",
    "dateutil": "python-dateutil",
}
"""Packages whose name is not that of their module."""


def advice(module: str, folder: Path) -> str:
    """What to do about a module that is missing, given the user's folder."""
    top = module.partition(".")[0]
    if (folder / f"{top}.py").is_file() or (folder / top).is_dir():
        return f"{top} is in the folder, {module} is not in it"
    package = OTHER_NAMES.get(top, top)
    try:
        with (folder / FILE).open(encoding="utf-8", errors="replace") as file:
            named = names_in(file.read(MAX_READ))
    except OSError:
        return f"give the folder a {FILE} that names {package}"
    if _plain(package) in named:
        return f"{FILE} names {package}, which does not bring it: is the name right?"
    return f"{FILE} does not name {package}: add it"


def names_in(text: str) -> frozenset[str]:
    """The packages that lines of requirements name, in their normal form."""
    found = (re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", line) for line in text.splitlines())
    return frozenset(_plain(one[1]) for one in found if one)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
