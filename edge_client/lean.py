"""Keeps what a device never uses out of the agent's memory."""

from __future__ import annotations

import importlib
import sys

_CLOUD_SDKS = ("boto3", "botocore", "azure.core", "google.cloud.kms", "hvac")
"""By which TUF's library signs with keys in a cloud, and which it imports where they are installed
(``securesystemslib.signer``). A device only verifies: boto3 alone is 11 MB and 0.25 s."""


def import_signers() -> None:
    """Import TUF's signers as where no cloud's SDK is installed; to be called before all else.

    A module that is None in ``sys.modules`` is not found, as the import system documents; this is
    undone at the end, so that whoever wants such an SDK later gets it.
    """
    hidden = [name for name in _CLOUD_SDKS if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        importlib.import_module("securesystemslib.signer")
    finally:
        for name in hidden:
            del sys.modules[name]
