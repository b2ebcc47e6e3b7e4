"""The ``argosy`` command. It uses the public API alone, through ``orchestrator.client``."""
