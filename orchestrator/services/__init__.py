"""Load a snapshot, let the domain decide, apply the decision in one transaction."""
