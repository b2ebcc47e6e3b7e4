"""Every error of the device: one tree, each with its exit code."""

from __future__ import annotations

from typing import ClassVar

from schemas.errors import Code, DeviceCause, Exit


class EdgeError(Exception):
    """Something that ends a command with one clear line.

    hint: the next thing to do, where there is one.
    """

    exit: ClassVar[Exit] = Exit.FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        if hint is not None:
            self.add_note(f"hint: {hint}")  # a program's traceback shows it, too


class UsageError(EdgeError):
    """An option or a file given by the user is not usable."""

    exit = Exit.USAGE


class NotEnrolledError(EdgeError):
    """The home holds no identity."""

    exit = Exit.NOT_FOUND


class AlreadyEnrolledError(EdgeError):
    """The home holds an identity already."""

    exit = Exit.CONFLICT


class AgentRunningError(EdgeError):
    """Another agent works in this home."""

    exit = Exit.CONFLICT


class BenchRunningError(EdgeError):
    """Another process measures in this home."""

    exit = Exit.CONFLICT


class BenchError(EdgeError):
    """A variant could not be measured."""


class CertificateError(EdgeError):
    """A key or a certificate that must not be used."""


class ServerError(EdgeError):
    """The server could not be reached, or refused, or is not the one to trust."""


class UnreachableError(ServerError):
    """Nothing was heard of the server, or not all; asking again may help."""


class RefusedError(ServerError):
    """The server said no. code: why. retry_after: seconds after which to ask again."""

    def __init__(
        self, message: str, code: Code, *, hint: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.code, self.retry_after = code, retry_after


class NotAdmittedError(RefusedError):
    """The join token is not valid here, or no longer, or an operator rejected the device."""

    exit = Exit.AUTH


class EnrollError(EdgeError):
    """The answer to an enrollment is not to be believed."""


class EnrollPendingError(EdgeError):
    """No operator has approved the device in time."""

    exit = Exit.TIMED_OUT


class RenewalError(EdgeError):
    """No new certificate could be had; the present one goes on."""


class JournalError(EdgeError):
    """The journal could not be written; the transition did not happen."""


class SwapPendingError(EdgeError):
    """The pointer could not be written just now; the swap is still to be done."""


class InputError(EdgeError):
    """An input does not fit the model's signature."""

    exit = Exit.USAGE


class InferenceError(EdgeError):
    """The model failed on a fitting input, or gave NaN or an infinity."""


class FullError(EdgeError):
    """No more requests or bytes may wait; ask again later."""


class LateError(EdgeError):
    """A request's deadline passed before its turn came."""

    exit = Exit.TIMED_OUT


class ClosedError(EdgeError):
    """What was asked is stopping, and takes no more requests."""


class ServeError(EdgeError):
    """The local server cannot listen where it was told to, or lacks what it needs."""


class BatchRunError(EdgeError):
    """Inference over files cannot go on; what it has done so far is kept."""


class OtherRunError(EdgeError):
    """The results that are there come from another model or another input."""

    exit = Exit.CONFLICT


class NoModelError(EdgeError):
    """The device has no active model yet."""

    exit = Exit.NOT_FOUND


class ForkedError(EdgeError):
    """What a process opened is used in a child that it forked."""


class UpdateError(EdgeError):
    """Why an update ended. ``cause`` is what the device reports."""

    cause: DeviceCause = DeviceCause.INTERNAL
    retryable: bool = False


class TrustError(UpdateError):
    """A document or a manifest that must not be acted on."""

    def __init__(self, cause: DeviceCause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class MetadataUnavailableError(EdgeError):
    """Trust metadata cannot be had now; it is tried again."""


class TransferError(UpdateError):
    """The bytes could not be fetched."""

    cause = DeviceCause.TRANSFER_FAILED
    retryable = True


class DigestError(UpdateError):
    """A file on disk is not what the manifest says."""

    cause = DeviceCause.DIGEST_MISMATCH
    retryable = True


class DiskFullError(UpdateError):
    """No room for the model; what was fetched is kept."""

    cause = DeviceCause.DISK_FULL
    retryable = True


class PointerError(UpdateError):
    """The pointer and its copy are damaged: nobody knows which files are in use."""


class PatchError(EdgeError):
    """A patch is damaged or is not for this base; the file can be had otherwise."""


class LoadError(UpdateError):
    """The model is not loadable here."""

    cause = DeviceCause.LOAD_FAILED


class OutOfMemoryError(LoadError):
    """There is not enough memory here for the model."""

    cause = DeviceCause.OUT_OF_MEMORY


class NothingBeforeError(EdgeError):
    """There is no model to go back to."""

    exit = Exit.CONFLICT


class RollbackError(EdgeError):
    """The model before was not put back, for a reason that may pass."""

    exit = Exit.CONFLICT


class WishError(EdgeError):
    """An update cannot be put off, or told to go on."""

    exit = Exit.CONFLICT


class AgentMissingError(EdgeError):
    """There is no running agent to ask."""

    exit = Exit.CONFLICT


class NoAnswerError(EdgeError):
    """The running agent did not answer in time."""

    exit = Exit.TIMED_OUT


class GoldenError(UpdateError):
    """The model does not give its golden outputs here."""

    cause = DeviceCause.GOLDEN_MISMATCH
