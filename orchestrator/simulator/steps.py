"""The steps of an update on a simulated device, each after the time that its profile gives it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from orchestrator.simulator.fetch import Package
from orchestrator.simulator.update import Host, Update
from schemas.device import ActiveModel
from schemas.errors import DeviceCause
from schemas.maintenance import for_download, look
from schemas.pace import MaintenanceWindow, Urgency
from schemas.rollout import ExecState, Shadow

S = ExecState
_PROGRESS_SECONDS = 1.0
_SWAP_SECONDS = 0.05


class Steps:
    """Brings one update at a time forward.

    Args:
        host: the device.
        swapped: called when the new version serves.
        ended: called when an update is over.
    """

    def __init__(
        self, host: Host, swapped: Callable[[Update], None], ended: Callable[[Update], None]
    ) -> None:
        self._host, self._swapped, self._ended = host, swapped, ended
        self._update: Update | None = None
        self._turn = 0

    def begin(self, update: Update) -> None:
        """Take an offer up, or refuse it."""
        host, assignment = self._host, update.assignment
        self._update = update
        self._turn += 1
        host.fetch.stop()
        if assignment.device != host.id or assignment.device_class != host.device_class:
            wrong = assignment.device != host.id
            cause = DeviceCause.WRONG_DEVICE if wrong else DeviceCause.WRONG_CLASS
            self.end(update, S.REJECTED, cause)
            return
        active = host.active.get(assignment.model)
        update.before = active
        wanted = (assignment.version, assignment.variant)
        if active is not None and (active.version, active.variant) == wanted:
            self.end(update, S.SUCCEEDED)
            return
        self._move(update, S.ACCEPTED)
        self._await_moment(update)

    def _await_moment(self, update: Update) -> None:
        """Wait a random part of the jitter, and say so, as the agent does."""
        host, longest = self._host, update.assignment.jitter_seconds
        seconds = min(host.pace(longest, "jitter", update.assignment.attempt), longest)
        if seconds > 0:
            until = host.now() + timedelta(seconds=seconds)
            told = f"{until:%Y-%m-%d %H:%M:%S} UTC"
            detail = f"waits out its random part of the jitter until {told}"
            self._move(update, S.DEFERRED, waits_until=until, detail=detail)
        self._after(seconds, self._start)

    def _start(self, update: Update) -> None:
        """Begin with the work, unless it is put off or waits for a window."""
        assignment, now = update.assignment, self._host.now()
        wait = self._host.outcome(assignment).deferral
        may = assignment.mode.urgency in {Urgency.SOFT, Urgency.TIME_FORCED}
        if wait and may and not update.put_off and not update.proceed:
            update.put_off = True
            until = now + timedelta(seconds=min(wait, assignment.max_deferral_seconds))
            if assignment.mode.force_at is not None:
                until = min(until, assignment.mode.force_at)
            self._move(update, S.DEFERRED, waits_until=until)
            self._after((until - now).total_seconds(), self._start)
            return
        if not self._open(update, for_download(assignment.windows), S.DEFERRED, self._start):
            return
        self._host.fetch.manifest(
            assignment.manifest_sha256, lambda package: self._packed(update, package)
        )

    def _open(
        self,
        update: Update,
        windows: tuple[MaintenanceWindow, ...],
        state: ExecState,
        then: Callable[[Update], None],
    ) -> bool:
        """Whether the windows let it go on; else it says until when it waits."""
        now = self._host.now()
        found = look(windows, now)
        if found.open or update.proceed:
            return True
        self._move(update, state, waits_until=found.until)
        if found.until is not None:
            self._after(max(1.0, (found.until - now).total_seconds()), then)
        return False

    def _packed(self, update: Update, package: Package | None) -> None:
        if self._gone(update):
            return
        files = None if package is None else package.files.get(update.assignment.variant)
        if files is None:
            self.end(update, S.FAILED, DeviceCause.TRANSFER_FAILED, retryable=True)
            return
        update.package = package
        total = sum(file.size for file in files)
        self._move(update, S.DOWNLOADING, bytes_done=0, bytes_total=total, bytes_fetched=0)
        if self._host.outcome(update.assignment).pulls:
            self._host.fetch.files(files, lambda whole: self._pulled(update, total, whole=whole))
        else:
            self._download(update, 0, total)

    def _pulled(self, update: Update, total: int, *, whole: bool) -> None:
        if self._gone(update):
            return
        if whole:
            self._downloaded(update, total)
        else:
            self.end(update, S.FAILED, DeviceCause.TRANSFER_FAILED, retryable=True)

    def _download(self, update: Update, done: int, total: int) -> None:
        """Go on with a download that is not really made."""
        if done >= total:
            self._downloaded(update, total)
            return
        if done:
            self._move(
                update, S.DOWNLOADING, bytes_done=done, bytes_total=total, bytes_fetched=done
            )
        rate = self._host.outcome(update.assignment).bytes_per_second
        step = min(_PROGRESS_SECONDS, (total - done) / rate)
        self._after(step, self._download, min(total, done + max(1, round(step * rate))), total)

    def _downloaded(self, update: Update, total: int) -> None:
        self._move(update, S.VERIFIED, bytes_done=total, bytes_total=total, bytes_fetched=total)
        self._after(self._host.pace(-1, "stage", update.assignment.attempt), self._stage)

    def _stage(self, update: Update) -> None:
        if self._host.outcome(update.assignment).fails:
            self.end(update, S.FAILED, DeviceCause.LOAD_FAILED, retryable=True)
            return
        self._move(update, S.STAGED)
        self._after(self._host.pace(-1, "swap", update.assignment.attempt), self._leave_stage)

    def _leave_stage(self, update: Update) -> None:
        assignment = update.assignment
        if assignment.mode.urgency is Urgency.DOWNLOAD_ONLY and not update.proceed:
            return  # it waits for a word
        if not self._open(update, assignment.windows, S.STAGED, self._leave_stage):
            return
        if assignment.shadow is not None and update.before is not None:
            self._move(update, S.SHADOWING)
            self._after(assignment.shadow.seconds, self._compare, assignment.shadow)
            return
        self._activate(update)

    def _compare(self, update: Update, shadow: Shadow) -> None:
        """The shadow has run beside what serves."""
        compared, agreed = self._host.shadowed(update, shadow)
        least = shadow.min_agreement
        enough = compared >= shadow.min_compared and least is not None
        if enough and least is not None and agreed < least * compared:
            self.end(update, S.FAILED, DeviceCause.SHADOW_DISAGREED)
        else:
            self._activate(update)

    def _activate(self, update: Update) -> None:
        self._move(update, S.ACTIVATING)
        self._after(_SWAP_SECONDS, self._swap)

    def _swap(self, update: Update) -> None:
        assignment = update.assignment
        files = update.package.files[assignment.variant] if update.package else ()
        self._host.serve(
            ActiveModel(
                model=assignment.model,
                version=assignment.version,
                variant=assignment.variant,
                sha256=files[0].sha256,
            ),
            assignment.model,
        )
        self._move(update, S.PROBATION)
        seconds = self._host.outcome(update.assignment).probation_seconds
        self._after(min(seconds, update.assignment.probation.max_seconds), self._judge)
        self._swapped(update)

    def _judge(self, update: Update) -> None:
        """Probation is over: the device alone decides."""
        cause = self._host.outcome(update.assignment).condemned
        if cause is None:
            self.end(update, S.SUCCEEDED)
        else:
            self._back(update, cause, retryable=False)

    def _back(self, update: Update, cause: DeviceCause, *, retryable: bool) -> None:
        self._host.serve(update.before, update.assignment.model)
        self.end(update, S.ROLLED_BACK, cause, retryable=retryable)

    def supersede(self, update: Update) -> None:
        """Give an update up for a newer one; what is not proven is put back first."""
        if update.state is S.PROBATION:
            self._back(update, DeviceCause.SUPERSEDED, retryable=True)
        else:
            self.end(update, S.FAILED, DeviceCause.SUPERSEDED)

    def proceed(self, update: Update) -> None:
        """Go on with what waits, whatever its mode and windows say."""
        update.proceed = True
        if update.state is S.DEFERRED:
            self._turn += 1
            self._start(update)
        elif update.state is S.STAGED:
            self._turn += 1
            self._leave_stage(update)

    def _move(self, update: Update, state: ExecState, **more: Any) -> None:
        update.state = state
        self._host.report(update, **more)

    def end(
        self,
        update: Update,
        state: ExecState,
        cause: DeviceCause | None = None,
        *,
        retryable: bool = False,
    ) -> None:
        """Report how it ended."""
        self._turn += 1
        self._host.fetch.stop()
        self._move(update, state, cause=cause, retryable=retryable)
        self._ended(update)

    def _after(self, seconds: float, act: Callable[..., None], *args: object) -> None:
        """Do a step later, unless the update went another way meanwhile."""
        update, turn = self._update, self._turn

        def step() -> None:
            if update is not None and update is self._update and turn == self._turn:
                act(update, *args)

        self._host.after(seconds, step)

    def _gone(self, update: Update) -> bool:
        return update is not self._update or update.over
