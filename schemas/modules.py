"""Names at the top of a folder of code that would hide modules of Python's own library.

The folder comes first in the search path of the job's processes, so that a ``random.py`` in
it would be what torch, Ray and the platform import.
"""

from __future__ import annotations

import sys

ENDINGS = frozenset({"py", "pyc", "so", "pyd"})

HARMLESS = frozenset({"test", "this", "antigravity"})
"""Of Python's library, but nobody imports them; many folders have a package ``test``."""


def hidden_by(name: str) -> str | None:
    """The module of Python's library that a file of the folder would hide, if any.

    name: of the file below the folder, with slashes. A folder hides one only if it is a
    package, with an ``__init__``.
    """
    first, _, below = name.partition("/")
    file = below or first
    module, _, ending = file.partition(".")
    if "/" in below or ending.rpartition(".")[2] not in ENDINGS or (below and module != "__init__"):
        return None
    found = first if below else module
    return found if found in sys.stdlib_module_names and found not in HARMLESS else None
