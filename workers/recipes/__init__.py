"""Tasks that come with Argosy."""
