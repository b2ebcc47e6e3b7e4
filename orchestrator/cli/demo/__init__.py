"""``argosy demo``: the whole loop on this machine, with the real programs."""
