"""The director's documents: made once for a rollout, filled in and signed for each device.

Of what a device is told, nearly all is the same for its whole rollout. python-tuf makes the
document; of that the text is kept, in the two forms that are needed: as it is signed (OLPC
canonical JSON, TUF specification §4.2.1) and as it is stored.
"""

from __future__ import annotations

import json
import re
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import TargetFile, Targets

from orchestrator.adapters.trust.documents import sign
from schemas.rollout import Assignment
from schemas.trust import desired_target, signable

_KEPT = 64
"""Forms: one for each rollout that is under way."""

_TEXTS = ("device", "device_class", "execution", "variant")
_NUMBERS = ("attempt", "sequence")
_OF_DEVICE = {*_TEXTS, "attempt"}
_PLAIN = re.compile(r"[ !#-\[\]-~]*")
"""Text that both forms have as it is: ASCII that needs no escape."""

_MARK = secrets.token_hex(16)
_HOLE = re.compile(f"<{_MARK}:([a-z_]+)>")


class AssignmentSigner:
    """Signs assignments; byte for byte what python-tuf makes of them."""

    def __init__(self) -> None:
        self._forms: OrderedDict[tuple[str, int], _Form] = OrderedDict()

    def sign(
        self,
        assignment: Assignment,
        manifest_size: int,
        sequence: int,
        expires: datetime,
        signers: Sequence[CryptoSigner],
    ) -> bytes:
        """The signed document of one device.

        Args:
            assignment: carried in the target's ``custom`` field, floats as text.
            manifest_size: bytes of the manifest that it names by its hash.
            sequence: the document's TUF version, 1 or more.
            expires: whole seconds count.
            signers: of the director's role.
        """
        texts = {name: getattr(assignment, name) for name in _TEXTS}
        if sequence < 1 or not _PLAIN.fullmatch("".join(texts.values())):
            return sign(_document(assignment, manifest_size, sequence, expires), signers)
        values = {
            **texts,
            "attempt": str(assignment.attempt),
            "sequence": str(sequence),
            "expires": _time(expires),
        }
        form = self._form(assignment, manifest_size)
        payload = _filled(form.canonical, values).encode()
        signatures = ",".join(_signature(signer, payload) for signer in signers)
        stored = _filled(form.stored, values)
        return f'{{"signatures":[{signatures}],"signed":{stored}}}'.encode()

    def _form(self, assignment: Assignment, manifest_size: int) -> _Form:
        key = assignment.model_dump_json(exclude=_OF_DEVICE), manifest_size
        form = self._forms.get(key)
        if form is None:
            form = self._forms[key] = _form_of(assignment, manifest_size)
            if len(self._forms) > _KEPT:
                self._forms.popitem(last=False)
        return form


@dataclass(frozen=True, slots=True)
class _Form:
    """Texts in which every second part is the name of what is to be filled in there."""

    canonical: tuple[str, ...]
    stored: tuple[str, ...]


def _form_of(assignment: Assignment, manifest_size: int) -> _Form:
    document = _document(assignment, manifest_size, 1, datetime.now(UTC)).to_dict()
    (target,) = document["targets"].values()
    for name in _OF_DEVICE:
        target["custom"][name] = _hole(name)
    path = desired_target(_hole("device"), _hole("execution"))
    document |= {
        "targets": {path: target},
        "version": _hole("sequence"),
        "expires": _hole("expires"),
    }
    return _Form(_parts(encode_canonical(document) or ""), _parts(_compact(document)))


def _signature(signer: CryptoSigner, payload: bytes) -> str:
    """As ``_compact`` would write it: a key's id and a signature are hexadecimal."""
    made = signer.sign(payload)
    if made.unrecognized_fields:
        return _compact(made.to_dict())
    return f'{{"keyid":"{made.keyid}","sig":"{made.signature}"}}'


def _hole(name: str) -> str:
    return f"<{_MARK}:{name}>"


def _parts(text: str) -> tuple[str, ...]:
    for name in _NUMBERS:
        text = text.replace(f'"{_hole(name)}"', _hole(name))
    return tuple(_HOLE.split(text))


def _filled(parts: Sequence[str], values: Mapping[str, str]) -> str:
    filled = list(parts)
    filled[1::2] = [values[name] for name in parts[1::2]]
    return "".join(filled)


def _document(
    assignment: Assignment, manifest_size: int, sequence: int, expires: datetime
) -> Targets:
    path = desired_target(assignment.device, assignment.execution)
    custom = {"custom": signable(assignment.model_dump(mode="json"))}
    target = TargetFile(manifest_size, {"sha256": assignment.manifest_sha256}, path, custom)
    return Targets(sequence, None, expires.astimezone(UTC), {path: target})


def _time(at: datetime) -> str:
    """As TUF writes it (specification §4.2.2)."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _compact(document: Mapping[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"), sort_keys=True)
