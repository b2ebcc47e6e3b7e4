"""The Python SDK: a typed, synchronous client of the platform's HTTP API.

    from orchestrator.client import Argosy

    with Argosy.from_profile() as argosy:
        job = argosy.jobs.submit(spec, folder)  # the folder of the task's code, if any
        job = argosy.jobs.wait(job.id)

Answers are the types of ``schemas/``; refusals are the errors of
``orchestrator.client.errors``, all of them ``ArgosyError``.
"""

from orchestrator.client.core import Argosy
from orchestrator.client.profile import Profile

__all__ = ["Argosy", "Profile"]
