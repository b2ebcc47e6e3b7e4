"""Argosy's wire types: all that its programs agree on.

The orchestrator, the workers and the edge client never import each other; they
meet here. Every message, topic, route body and error code has one definition in
this package. ``PROTOCOL`` is raised when a change stops an older peer from
understanding a newer one; additions do not raise it, because unknown fields are
ignored on the wire.
"""

PROTOCOL = 1
