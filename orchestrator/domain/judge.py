"""What a wave must show without a control cohort: failures, successes, evidence there at all.

Missing evidence is never a pass: it is waited for, then the verdict is inconclusive. What devices
infer counts as the mean over devices, each with one vote, so that none can hide or make a
wave's failure by how much it says it did. What is held against a cohort is judged in
``domain.judging``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import floor

from orchestrator.domain.execution import FAILURES
from schemas.errors import DeviceCause
from schemas.gates import Evidence, FailureGate, FailureKind, Gates, Metric
from schemas.rollout import EXEC_TERMINAL, ExecState


@dataclass(frozen=True, slots=True)
class Served:
    """What the devices of a wave that serve the new version inferred with it.

    devices: how many serve it. least: the fewest inferences of one of them, None without any.
    voters: devices with ``min_inferences`` at least; errors: the sum of their shares of failed
    inferences. short_errors: likewise of the others, of ``min_inferences``, as if those that are
    missing had not failed. labelling: devices with any labels; correct: the sum of their shares of
    right answers; labels: how many they had, each device counted up to ``min_inferences``.
    """

    devices: int = 0
    least: int | None = None
    voters: int = 0
    errors: float = 0.0
    short_errors: float = 0.0
    labelling: int = 0
    correct: float = 0.0
    labels: int = 0

    @property
    def short(self) -> int:
        """Devices that told of fewer inferences than they must."""
        return self.devices - self.voters


@dataclass(frozen=True, slots=True)
class Ends:
    """How the executions of a wave stand.

    counts: in each state; what succeeded and was undone later counts as what it came to.
    causes: of those that failed.
    """

    counts: Mapping[ExecState, int]
    causes: Mapping[DeviceCause, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """All of them."""
        return sum(self.counts.values())

    @property
    def seen(self) -> int:
        """Those that say something of how the version fares."""
        return sum(n for state, n in self.counts.items() if state not in _UNSEEN)

    @property
    def ended(self) -> int:
        """Of those seen, the ones that are over."""
        over = EXEC_TERMINAL - _UNSEEN
        return sum(n for state, n in self.counts.items() if state in over)

    def failed(self, kind: FailureKind = FailureKind.ANY) -> int:
        """Failures of a kind."""
        if kind is FailureKind.ANY:
            return sum(self.counts.get(state, 0) for state in FAILURES)
        if kind in _STATES:
            return self.counts.get(_STATES[kind], 0)
        return self.causes.get(DeviceCause(kind.value), 0)


_STATES = {
    FailureKind.FAILED: ExecState.FAILED,
    FailureKind.ROLLED_BACK: ExecState.ROLLED_BACK,
    FailureKind.REJECTED: ExecState.REJECTED,
    FailureKind.TIMED_OUT: ExecState.TIMED_OUT,
}

_UNSEEN = frozenset(
    {
        ExecState.SCHEDULED,
        ExecState.OFFERED,
        ExecState.NO_VARIANT,
        ExecState.REMOVED,
        ExecState.SUPERSEDED,
        ExecState.CANCELLED,
        ExecState.ALREADY_INSTALLED,
        ExecState.UNKNOWN,
    }
)
"""States that say nothing of how the version fares on a device."""


def ends(
    counts: Mapping[ExecState, int],
    late: Mapping[ExecState, int],
    causes: Mapping[DeviceCause, int],
) -> Ends:
    """How executions stand, what was undone after its success included.

    Args:
        counts: executions in each state.
        late: of those that succeeded, what they came to later.
        causes: of failures.
    """
    found = dict(counts)
    for state, n in late.items():
        found[ExecState.SUCCEEDED] = found.get(ExecState.SUCCEEDED, 0) - n
        found[state] = found.get(state, 0) + n
    return Ends(found, causes)


def hopeless(wave: Ends, gates: Gates) -> tuple[Evidence, ...]:
    """Why a wave that still runs cannot pass any more, or must not go on; empty where it may.

    ``max_failure_rate`` and ``min_success_rate`` stop it once nothing that the rest does could
    help; a gate by kind already where so many of the first ones to end failed in its way.
    """
    if not wave.size:
        return ()
    found = []
    failed, size = wave.failed(), wave.size
    if failed / size > gates.max_failure_rate:
        note = _noted(_WHOLE, wave)
        found.append(_bad("failure_rate", failed / size, gates.max_failure_rate, size, note))
    if gates.min_success_rate is not None and 1 - failed / size < gates.min_success_rate:
        found.append(_bad("success_rate", 1 - failed / size, gates.min_success_rate, size, _WHOLE))
    for gate in gates.failures:
        failed, ended = wave.failed(gate.kind), wave.ended
        early = ended >= gate.min_devices and failed / ended > gate.max_rate
        of = ended if early else size
        if failed / of > gate.max_rate:
            note = _noted(_ENDED if early else _WHOLE, wave)
            found.append(_bad(metric_of(gate), failed / of, gate.max_rate, of, note))
    return tuple(found)


_WHOLE = "of the whole wave"
_ENDED = "of those that had ended by then"


def _noted(whose: str, wave: Ends) -> str:
    """Of whom a rate is, as one verdict may have rates of both; and the causes."""
    return "; ".join(filter(None, (whose, _causes(wave))))


def judge(wave: Ends, served: Served, gates: Gates, *, last: bool) -> tuple[Evidence, ...]:
    """The figures of a wave whose executions have all ended.

    Args:
        wave: how they ended.
        served: what those devices inferred that serve the version.
        gates: the thresholds.
        last: nothing more is waited for. As many devices as the gate of silence tolerates may
            then have told too little, and are not waited for by whole fleets.
    """
    return (
        *_failures(wave, gates),
        _inferences(served, gates, last=last),
        _errors(served, gates, last=last),
        *_accuracy(served, gates, last=last),
    )


def metric_of(gate: FailureGate) -> str:
    """What a gate's evidence is called."""
    return "failure_rate" if gate.kind is FailureKind.ANY else f"{gate.kind}_rate"


def _failures(wave: Ends, gates: Gates) -> tuple[Evidence, ...]:
    seen = wave.seen
    # Where nothing had to be done, nothing failed.
    nothing = 0.0 if wave.counts.get(ExecState.ALREADY_INSTALLED) else None
    wanted = (
        FailureGate(kind=FailureKind.ANY, max_rate=gates.max_failure_rate),
        *gates.failures,
    )
    found = []
    for gate in wanted:
        rate = wave.failed(gate.kind) / seen if seen else nothing
        ok = None if rate is None else rate <= gate.max_rate
        found.append(_evidence(metric_of(gate), rate, gate.max_rate, seen, ok, _causes(wave)))
    least = gates.min_success_rate
    if least is not None:
        good = wave.counts.get(ExecState.SUCCEEDED, 0)
        rate = good / seen if seen else (None if nothing is None else 1.0)
        ok = None if rate is None else rate >= least
        found.append(_evidence("success_rate", rate, least, seen, ok))
    return tuple(found)


def _inferences(served: Served, gates: Gates, *, last: bool) -> Evidence:
    may_lack = floor(_silence(gates) * served.devices) if last else 0
    ok = True if served.devices and served.short <= may_lack else None
    note = f"{served.short} of {served.devices} devices told of fewer" if served.short else ""
    if ok and note:
        note += ", which the gate of silence tolerates"
    return _evidence("min_inferences", served.least, gates.min_inferences, served.devices, ok, note)


def _silence(gates: Gates) -> float:
    return next((g.max_worse for g in gates.telemetry if g.metric is Metric.SILENCE), 0.0)


def _errors(served: Served, gates: Gates, *, last: bool) -> Evidence:
    most, mean = gates.max_error_rate, None
    ok: bool | None = None
    if served.voters:
        mean = served.errors / served.voters
        # Whoever has not told yet may do without an error.
        certain = served.errors / served.devices > most
        if certain or last or not served.short:
            ok = mean <= most
    # In the end it has had those that it told of: who fails all that it tries, and so tries
    # little, must not drop out.
    least = (served.errors + served.short_errors) / max(1, served.devices)
    if last and least > most and ok is not False:
        note = f"{served.short} of them told of too few inferences"
        return _evidence("error_rate", least, most, served.devices, ok=False, note=note)
    return _evidence("error_rate", mean, most, served.voters, ok)


def _accuracy(served: Served, gates: Gates, *, last: bool) -> tuple[Evidence, ...]:
    if gates.min_accuracy is None:
        return ()
    value = served.correct / served.labelling if served.labelling else None
    enough = served.labels >= gates.min_inferences and (last or not served.short)
    ok = value >= gates.min_accuracy if enough and value is not None else None
    return (_evidence("accuracy", value, gates.min_accuracy, served.labelling, ok),)


def _causes(wave: Ends) -> str:
    most = sorted(wave.causes.items(), key=lambda one: (-one[1], one[0]))[:5]
    return ", ".join(f"{cause.value} {n}" for cause, n in most)


def _bad(metric: str, value: float, threshold: float, n: int, note: str = "") -> Evidence:
    return _evidence(metric, value, threshold, n, ok=False, note=note)


def _evidence(
    metric: str,
    value: float | None,
    threshold: float,
    n: int,
    ok: bool | None,  # noqa: FBT001 - three-valued
    note: str = "",
) -> Evidence:
    return Evidence(metric=metric, value=value, threshold=threshold, n=n, ok=ok, note=note)
