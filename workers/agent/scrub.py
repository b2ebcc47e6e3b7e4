"""The environment of the local Ray head, and so of all user code: only what is harmless.

A list of what may pass, not of what may not: a secret that nobody thought of stays out.
The operator passes further variables by name (``--pass-env``), such as the keys of the
storage that jobs write to.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

TREE_MARK = "ARGOSY_TREE"
"""Carried by every process of the platform: by it the supervisor finds them."""

_NAMES = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR",
    "TEMP", "TMP", "HOSTNAME", "LD_LIBRARY_PATH", "LD_PRELOAD", "LIBRARY_PATH", "CPATH", "CC",
    "CXX", "VIRTUAL_ENV", "CONDA_PREFIX", "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
})  # fmt: skip
_PREFIXES = (
    "LC_", "PYTHON", "PIP_", "UV_", "XDG_", "RAY_", "CUDA_", "NVIDIA_", "NCCL_", "GLOO_",
    "TORCH", "PYTORCH_", "OMP_", "MKL_", "KMP_", "OPENBLAS_", "NUMEXPR_", "GOTO_", "MALLOC_",
    "ROCR_", "HIP_", "COVERAGE_",
)  # fmt: skip
_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_KEY")
_LOGIN_IN_URL = re.compile(r"://[^/@\s]+@")


def harmless(env: Mapping[str, str], passed: Collection[str] = ()) -> dict[str, str]:
    """What of an environment user code may see.

    Args:
        env: the agent's.
        passed: names that the operator lets through, whatever they hold.
    """
    return {
        name: value
        for name, value in env.items()
        if name == TREE_MARK or name in passed or _harmless(name.upper(), value)
    }


def _harmless(name: str, value: str) -> bool:
    known = name in _NAMES or name.startswith(_PREFIXES)
    return known and not (_SECRET_NAME.search(name) or _LOGIN_IN_URL.search(value))
