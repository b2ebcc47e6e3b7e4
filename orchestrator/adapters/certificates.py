"""The former place of ``orchestrator.adapters.authority.parts``."""

from orchestrator.adapters.authority.parts import utc_now

__all__ = ["utc_now"]
