"""Which files of a folder are the user's code: the rules of ``.gitignore``, and ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pathspec import GitIgnoreSpec

from orchestrator.errors import Invalid

IGNORE_FILES = (".gitignore", ".argosyignore")
"""Read in this order in each folder; a later rule overrules an earlier one."""

MAX_IGNORE_BYTES = 1024 * 1024

_NEVER = frozenset(
    {
        ".git",
        "__pycache__",
        ".venv",
        "venv",
        "node_modules",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".DS_Store",
        # Ray would read it again and leave out what was packed on purpose.
        ".rayignore",
        *IGNORE_FILES,
    }
)
_NEVER_LIKE = ("*.pyc", "*.pyo")


def never_packed(name: str) -> bool:
    """Whether a file or folder of this name is left out, whatever the rules say."""
    return name in _NEVER or any(fnmatchcase(name, like) for like in _NEVER_LIKE)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules that stand in one folder. base: its path, with a slash at the end."""

    base: str
    spec: GitIgnoreSpec


def rules_of(folder: Path, files: Sequence[str] = IGNORE_FILES) -> Rules | None:
    """The rules that stand in a folder, or None.

    Raises:
        Invalid: its ignore file cannot be read; with the line.
    """
    lines: list[str] = []
    for name in files:
        lines += _lines(folder / name)
    return Rules(f"{folder}/", GitIgnoreSpec.from_lines(lines)) if lines else None


def outer_rules(folder: Path) -> list[Rules]:
    """The rules of the checkout around a folder, from its top down.

    They are not read where they exclude the folder itself: who packs it wants its files.
    """
    above: list[Path] = []
    for parent in [folder, *folder.parents]:
        if parent != folder:
            above.insert(0, parent)
        if (parent / ".git").exists():
            found = [rules for place in above if (rules := rules_of(place, (".gitignore",)))]
            return [] if _excludes_a_part(found, folder, parent) else found
    return []


def _excludes_a_part(rules: Sequence[Rules], folder: Path, top: Path) -> bool:
    parts = folder.relative_to(top).parts
    places = [top.joinpath(*parts[: i + 1]) for i in range(len(parts))]
    return any(excluded(rules, f"{place}/") for place in places)


def excluded(rules: Sequence[Rules], path: str) -> bool:
    """Whether rules leave a path out; the deepest that says anything decides.

    Args:
        rules: of the folders around it, from the top down.
        path: absolute; of a folder with a slash at the end.
    """
    for one in reversed(rules):
        if path.startswith(one.base) and len(path) > len(one.base):
            answer = one.spec.check_file(path[len(one.base) :]).include
            if answer is not None:
                return answer
    return False


def _lines(path: Path) -> list[str]:
    try:
        if not path.is_file():  # a pipe would be waited for
            return []
        with path.open("rb") as file:
            raw = file.read(MAX_IGNORE_BYTES + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        detail = f"{path} cannot be read: {error.strerror}"
        raise Invalid(detail, hint="it says what is left out of the code") from error
    if len(raw) > MAX_IGNORE_BYTES:
        detail = f"{path} is larger than {MAX_IGNORE_BYTES // 1024} KiB"
        raise Invalid(detail, hint="an ignore file is a page of patterns; is this one?")
    lines = raw.decode("utf-8-sig", "replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            GitIgnoreSpec.from_lines([line])
        except (ValueError, re.error) as error:
            detail = f"{path}:{number}: {line!r} is not a pattern of a .gitignore"
            raise Invalid(detail, hint="mend it or take it out") from error
    return lines
