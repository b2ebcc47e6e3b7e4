"""What devices were given, as the files that they then serve."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence

from orchestrator.domain import reconcile
from orchestrator.domain.reconcile import Given
from orchestrator.services.ports import Transaction
from orchestrator.services.records import ExecutionRecord, GivenRecord
from schemas.device import ActiveModel
from schemas.model import Manifest

_MOST = 1000

_files: OrderedDict[str, Mapping[str, str]] = OrderedDict()
"""Manifest's SHA-256 → variant → its file's SHA-256: what a digest names never changes."""
_lock = threading.Lock()


def given(tx: Transaction, devices: Collection[str]) -> Mapping[str, Sequence[Given]]:
    """What each of the devices was given, newest first; an empty list for none."""
    found = tx.outbox.given(devices)
    return {
        device: [one for record in found.get(device, ()) for one in _models(tx, record)]
        for device in devices
    }


def lost(
    tx: Transaction,
    serves: Mapping[str, Collection[str]],
    before: Mapping[str, str] | None = None,
) -> Mapping[str, ExecutionRecord]:
    """Of devices at work on nothing: what brought each a model that it does not have any more.

    Args:
        tx: in which it is looked up.
        serves: the models that each of the devices has.
        before: the execution that each of them was offered once more last.
    """
    found = given(tx, serves) if serves else {}
    last = before or {}
    wanted = {
        device: reconcile.lost(found[device], its, before=last.get(device))
        for device, its in serves.items()
    }
    records = tx.outbox.executions({one for one in wanted.values() if one is not None})
    return {device: records[one] for device, one in wanted.items() if one is not None}


def _models(tx: Transaction, record: GivenRecord) -> Iterator[Given]:
    for variant, sha256 in _files_of(tx, record).items():
        if record.variant in {None, variant}:
            model = ActiveModel(
                model=record.model, version=record.version, variant=variant, sha256=sha256
            )
            yield Given(record.execution, model, record.state, record.late)


def _files_of(tx: Transaction, record: GivenRecord) -> Mapping[str, str]:
    with _lock:
        files = _files.get(record.manifest_sha256)
        if files is not None:
            _files.move_to_end(record.manifest_sha256)
            return files
    version = tx.models.get(record.model, record.version)
    if version is None:
        return {}
    manifest = Manifest.model_validate_json(version.manifest)
    files = {variant.id: variant.file.sha256 for variant in manifest.variants}
    with _lock:
        _files[record.manifest_sha256] = files
        while len(_files) > _MOST:
            _files.popitem(last=False)
    return files
