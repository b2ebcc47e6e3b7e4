"""Requirements of the user's code, read and judged: no IO beyond the text that is given.

The platform's own packages come first. A job may add to them and never replace them, so a
requirement that their versions do not meet is refused by name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from schemas.job import JobCause
from workers.errors import JobFailed

FILE = "requirements.txt"
MAX_BYTES = 256 * 1024
MAX_LINES = 2000

_OPTION_OF_INDEX = re.compile(
    r"^(-i|-f|--index-url|--extra-index-url|--find-links|--trusted-host|--no-index|--pre)\b"
)
_OTHER_FILE = re.compile(r"^(-r|-c|--requirement|--constraint)\b")
_NETWORK = re.compile(
    r"connection broken by|NewConnectionError|ConnectTimeoutError|ReadTimeout|"
    r"NameResolutionError|Temporary failure in name resolution|Connection reset by peer|"
    r"Network is unreachable|RemoteDisconnected|ProxyError|HTTP error 5\d\d|"
    r"5\d\d Server Error|IncompleteRead|Max retries exceeded"
)
_NOTHING_SAID = re.compile(r"ResolutionImpossible|for help visit|^ERROR: Failed to build$")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the file. number: from 1. requirement: None for options, paths and URLs."""

    number: int
    text: str
    requirement: Requirement | None = None


def read(data: bytes) -> tuple[Line, ...]:
    """The lines that say something.

    Raises:
        JobFailed: it is too large, no text, or asks for what is not possible here.
    """
    if len(data) > MAX_BYTES:
        refuse(f"has {len(data)} bytes, more than {MAX_BYTES}")
    try:
        text = data.decode("utf-8-sig").replace("\\\n", "")
    except UnicodeDecodeError:
        refuse("is not UTF-8 text")
    rows = [
        (n, re.sub(r"(^|\s)#.*$", "", row).strip()) for n, row in enumerate(text.split("\n"), 1)
    ]
    found = tuple(_line(number, row) for number, row in rows if row)
    if len(found) > MAX_LINES:
        refuse(f"has {len(found)} lines, more than {MAX_LINES}")
    return found


def _line(number: int, row: str) -> Line:
    if row.startswith(("-e", "--editable")):
        refuse(
            f"line {number}: {row[:200]}: nothing can be installed as editable; "
            "code of your own belongs into the folder"
        )
    if row.startswith("-") or re.match(r"^[./~]|^[\w+.-]+://", row):
        return Line(number, row)
    bare = re.split(r"\s--?\w", row)[0]  # options of pip behind it, such as --hash
    try:
        return Line(number, row, Requirement(bare))
    except InvalidRequirement as error:
        why = str(error).splitlines()[0]
        refuse(f"line {number}: {row[:200]!r} is no requirement: {why}")


def check(lines: Sequence[Line], base: Mapping[str, str]) -> None:
    """Refuse what the platform's packages contradict.

    Args:
        lines: of the file.
        base: versions of the platform's packages by canonical name.

    Raises:
        JobFailed: names the requirement and the version that is there.
    """
    for line in lines:
        wanted = line.requirement
        if wanted is None or (wanted.marker is not None and not wanted.marker.evaluate()):
            continue
        there = base.get(canonicalize_name(wanted.name))
        if there is not None and (wanted.url is not None or not _fits(wanted, there)):
            refuse(
                f"line {line.number}: {wanted} is not what the platform has, which is "
                f"{wanted.name} {there}, and a job cannot replace it; "
                "allow that version, or leave the line out"
            )


def _fits(wanted: Requirement, there: str) -> bool:
    try:
        return wanted.specifier.contains(Version(there), prereleases=True)
    except InvalidVersion:
        return True  # pip decides


def key_of(data: bytes, base: Sequence[str], python: str, code: str) -> str:
    """The name of an environment: the same for the same contents.

    Args:
        data: the file.
        base: the platform's packages, as names with versions.
        python: interpreter, version and machine.
        code: digest of the folder; it counts where the file leads to others in it.
    """
    lines = read(data)
    leads_on = any(x.requirement is None and not _OPTION_OF_INDEX.match(x.text) for x in lines)
    parts = [data.decode("utf-8-sig"), *sorted(base), python, code if leads_on else ""]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def constraints(base: Mapping[str, str]) -> str:
    """A constraints file for pip that holds the platform's packages where they are."""
    return "".join(f"{name}=={version}\n" for name, version in sorted(base.items()))


def resolved(report: Mapping[str, Any], lines: Sequence[Line], base: Mapping[str, str]) -> str:
    """A requirements file of exactly what pip would install, with hashes, without the rest.

    Args:
        report: of ``pip install --dry-run --report``.
        lines: of the user's file; the options that say where to look are kept.
        base: the platform's packages by canonical name.

    Raises:
        JobFailed: one of the platform's packages would be replaced.
    """
    rows = [line.text for line in lines if _OPTION_OF_INDEX.match(line.text)]
    for one in report["install"]:
        name, version = one["metadata"]["name"], one["metadata"]["version"]
        there = base.get(canonicalize_name(name))
        if there is not None:
            refuse(
                f"{name} {version} would replace the platform's {name} {there}; allow that version"
            )
        rows.append(f"{name} @ {_url(one['download_info'])}")
    return "\n".join(rows) + "\n"


def _url(info: Mapping[str, Any]) -> str:
    url = str(info["url"])
    if "vcs_info" in info:
        return f"{info['vcs_info']['vcs']}+{url}@{info['vcs_info']['commit_id']}"
    sha256 = info.get("archive_info", {}).get("hashes", {}).get("sha256")
    return f"{url}#sha256={sha256}" if sha256 else url


def is_network(output: str) -> bool:
    """Whether pip failed because something could not be reached: another try may succeed."""
    return _NETWORK.search(output) is not None


def explain(output: str) -> str:
    """The line of pip's output that says why it failed; of a conflict, between what."""
    _, conflict, block = output.partition("The conflict is caused by:\n")
    if conflict:
        sides = [row.strip() for row in block.partition("\n\n")[0].splitlines()]
        said = "conflict: " + "; ".join(sides)
        return said.replace("The user requested (constraint)", "the platform has")[:1000]
    rows = [row.strip() for row in output.splitlines() if row.strip()]
    errors = [
        r for r in rows if re.match(r"(?i)(error|\w+Error)\b", r) and not _NOTHING_SAID.search(r)
    ]
    last = errors[-1] if errors else (rows[-1] if rows else "pip said nothing")
    return last.removeprefix("ERROR: ")[:1000]


def refuse(why: str) -> NoReturn:
    """Fail a job whose requirements cannot be had."""
    raise JobFailed(JobCause.ENVIRONMENT, f"{FILE}: {why}")
