"""Writes the vectors of the device protocol: ``python -m tests.vectors.make``.

What is right or wrong is written down by hand in the modules that this one gathers; bytes and
digests come from the programs' own code. A test writes them anew and compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from schemas import PROTOCOL
from tests.vectors import executions, messages, telemetry, transfer, trust, windows

FOLDER = Path(__file__).parent
DOCUMENT = FOLDER.parents[1] / "docs" / "protocol.md"
WIDTH = 100

_BLOCK = re.compile(r"```json (\w+)\n.*?```", re.DOTALL)

ABOUT = {
    "topics.json": "Topic names. Parse `topic`: `kind` up, down or broadcast with its parts, or"
    " null.",
    "chunks.json": "Chunk messages: `head` (hex), then `count` bytes `fill`. `chunk` is null where"
    " the message is to be ignored.",
    "leaves.json": "Files: byte i is (7 i + floor(i / 251) + seed) mod 256. Cut them into chunks"
    " of 64 KiB, digest each, then all digests after one another.",
    "ranges.json": "Chunk indices as ranges, as they are asked for.",
    "histogram.json": "Values and the bucket of the telemetry histogram that they belong to.",
    "texts.json": "Texts that are signed, digested or shown: a join token, a fingerprint, a request"
    " for renewal with an ECDSA signature (P-256, SHA-256, DER) by `public_key_pem`.",
    "messages.json": "Messages by their type: `json` is to be taken (`valid`) or refused. One that"
    " is refused is dropped as if it had not come.",
    "telemetry.json": "Messages in MessagePack, as `hex`: to be taken (`valid`), with what they"
    " hold by the names of the fields, or refused.",
    "desired.json": "Trust metadata from a pinned root on, and desired documents: to be believed"
    " by the device, its class, its floor and its clock that each case names, or refused with"
    " `cause`. `signed`: what the first document's signature is over.",
    "executions.json": "What the server makes of reports: after each step the record stands as"
    " `expect` says. `cancel`: it sends the command to cancel.",
    "windows.json": "Whether any of `windows` is `open` `at` a time, and `until` when it stays so."
    " For who lets updates wait.",
}


def every() -> dict[str, dict[str, Any]]:
    """Each file's content by its name."""
    made = {
        **transfer.vectors(),
        **messages.vectors(),
        **telemetry.vectors(),
        **trust.vectors(),
        **executions.vectors(),
        **windows.vectors(),
    }
    index = [
        {"file": name, "cases": len(made[name]["cases"]), "about": about}
        for name, about in ABOUT.items()
    ]
    note = (
        "Vectors of the device protocol (docs/protocol.md) for any implementation. Each file has"
        " `cases`; each case has a `name`. patch/ has an index of its own."
    )
    return {"index.json": {"protocol": PROTOCOL, "about": note, "files": index}, **made}


def text_of(content: dict[str, Any]) -> str:
    """A file's text."""
    return json.dumps(content, indent=1) + "\n"


def documented(text: str) -> str:
    """The document, with each ``json TYPE`` block as the example of that type."""

    def block(found: re.Match[str]) -> str:
        return f"```json {found[1]}\n{_filled(messages.EXAMPLES[found[1]])}\n```"

    return _BLOCK.sub(block, text)


def _filled(value: Any) -> str:
    """JSON in lines that are as full as they can be."""
    lines = [""]
    for token in _tokens(value):
        if lines[-1] and len(lines[-1]) + 1 + len(token) > WIDTH:
            lines.append(" " + token)
        else:
            lines[-1] += (" " if lines[-1] else "") + token
    return "\n".join(lines)


def _tokens(value: Any, before: str = "", after: str = "") -> Iterator[str]:
    """JSON in parts between which a line may end."""
    if not isinstance(value, dict | list) or not value:
        yield before + json.dumps(value) + after
        return
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    parts = list(value.items() if isinstance(value, dict) else ((None, one) for one in value))
    for number, (key, one) in enumerate(parts):
        start = (before + opening if number == 0 else "") + (f"{json.dumps(key)}: " if key else "")
        end = closing + after if number + 1 == len(parts) else ","
        yield from _tokens(one, start, end)


def main() -> None:
    """Write them all, and the examples in the document."""
    DOCUMENT.write_text(documented(DOCUMENT.read_text()))
    for name, content in every().items():
        (FOLDER / name).write_text(text_of(content))


if __name__ == "__main__":
    main()
