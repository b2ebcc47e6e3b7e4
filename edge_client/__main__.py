"""``python -m edge_client`` is ``argosy-edge``."""

from __future__ import annotations

from edge_client.cli import main

if __name__ == "__main__":
    main()
