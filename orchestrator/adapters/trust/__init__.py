"""The signer of TUF metadata (The Update Framework 1.0) for one platform.

``root`` vouches for ``targets``, ``snapshot`` and ``timestamp``; ``targets`` delegates to
``models`` (which delegates to a role for each model, or to hashed bins) and ``director``.
Who holds which key, and what each signs, stands in docs/trust.md.
"""

from orchestrator.adapters.trust.creation import Offline
from orchestrator.adapters.trust.store import TrustStore

__all__ = ["Offline", "TrustStore"]
