"""A session of ONNX Runtime on the provider that was asked for."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

from edge_client.errors import LoadError, OutOfMemoryError
from edge_client.profile import Profile
from edge_client.providers import CPU, Choice, choose
from edge_client.sessions import SessionSettings

_NO_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate memory", "Available memory of")
"""What onnxruntime says where an allocation failed."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A session, on what it runs, and what was asked for where that is another ("" else).

    profile: that is being written, where several providers share the graph or it was asked for.
    """

    session: Any
    provider: str
    wanted: str
    profile: Profile | None


def says_no_memory(message: str) -> bool:
    """Whether what onnxruntime says means that memory was short."""
    return any(sign in message for sign in _NO_MEMORY)


def open_session(
    onnx: bytes,
    settings: SessionSettings,
    required: tuple[str, ...],
    *,
    profile_in: Path | None = None,
) -> Opened:
    """Make a session, on CPU where that may take the place of what cannot be had.

    Args:
        onnx: the file's bytes, checked.
        settings: what the session may use.
        required: the providers that the variant runs on, best first.
        profile_in: profile it from the beginning, in a folder there.

    Raises:
        LoadError: it cannot be loaded here, or not on that provider.
    """
    choice = choose(settings, required, ort.get_available_providers())
    try:
        return _open(onnx, settings, choice, profile_in)
    except OutOfMemoryError:
        raise
    except LoadError:
        if not settings.fallback or choice.provider == CPU:
            raise
        instead = Choice(CPU, choice.provider, ((CPU, {}),))
        return _open(onnx, settings, instead, profile_in)


def _open(
    onnx: bytes, settings: SessionSettings, choice: Choice, profile_in: Path | None
) -> Opened:
    options, profile = settings.options(), None
    if profile_in is not None or len(choice.chain) > 1:
        with suppress(OSError):  # without room for it, nodes are not known
            profile = Profile(options, profile_in)
    try:
        session = _session(onnx, options, choice)
    except LoadError:
        if profile is not None:
            profile.drop()
        raise
    # Else a run that fails on one provider is repeated on another, and nobody is told.
    session.disable_fallback()
    return Opened(session, choice.provider, choice.wanted, profile)


def _session(onnx: bytes, options: Any, choice: Choice) -> Any:
    try:
        session = ort.InferenceSession(
            onnx, options, providers=list(choice.chain), enable_fallback=0
        )
    except Exception as error:  # onnxruntime's exceptions share no other base
        why = first_line(error)
        if isinstance(error, MemoryError) or says_no_memory(str(error)):
            msg = f"there is not enough memory to load the model: {why}"
            raise OutOfMemoryError(msg) from error
        msg = f"onnxruntime cannot load the model: {why}"
        raise LoadError(msg) from error
    used = session.get_providers()
    if choice.provider not in used:
        msg = f"{choice.provider} cannot be started here (only {', '.join(used)} could)"
        raise LoadError(msg, hint="its libraries or its device may be missing")
    return session


def first_line(error: BaseException) -> str:
    """What an exception says, on one line of bounded length."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
