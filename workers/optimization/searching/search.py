"""The search: does what the plan says, measures what comes of it, and tells it as it goes.

It needs a graph in FP32 and samples, nothing of how the net was made: nets that must be
trained come through ``Nets``. What is done is kept in a cache by content.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from schemas.budget import Budget
from schemas.job import JobCause
from schemas.model import Pass
from schemas.optimize import Optimize
from workers.errors import JobFailed, WorkerError
from workers.files import write_atomic
from workers.optimization.cache import Cache
from workers.optimization.executor import TrialFailed, beat
from workers.optimization.measuring.evaluate import Scored, score
from workers.optimization.measuring.host import host_isa
from workers.optimization.measuring.latency import STARTS, Cost, costs
from workers.optimization.measuring.timing import ROUNDS, Failure
from workers.optimization.point import Point, static_schemes
from workers.optimization.searching.budgets import Known, fault, too_few
from workers.optimization.searching.front import Selection, select
from workers.optimization.searching.make import Maker, Net
from workers.optimization.searching.narrate import check_same, line, tell
from workers.optimization.searching.needs import Data, Nets, Optimized
from workers.optimization.searching.plan import (
    Done,
    Profile,
    Rules,
    Scan,
    State,
    Step,
    Try,
    accurate,
    next_step,
)
from workers.optimization.searching.trials import Trial, first_line, keep
from workers.optimization.session import open_session

__all__ = ["MEASURED_SAMPLES", "Data", "Nets", "Optimized", "optimize_graph"]

log = logging.getLogger(__name__)

QUICK_ROUNDS = 4
"""Of timing while the search goes on; what is kept is measured again, all in turn."""

MEASURED_SAMPLES = 64


def optimize_graph(
    reference: Path,
    data: Data,
    optimize: Optimize,
    *,
    folder: Path,
    cache: Cache | None = None,
    nets: Nets | None = None,
    passes: Sequence[Pass] = (),
    arch: str | None = None,
    isa: Sequence[str] | None = None,
) -> Optimized:
    """Search for the best forms of a graph within its budgets.

    Args:
        reference: the unpruned net in FP32, one file that takes raw inputs.
        data: to calibrate, judge and report with.
        optimize: what to try, and the limits; classes included.
        folder: where the kept files are put, as ``model-<id>.onnx``.
        cache: of trials; None: nothing is kept beyond this call.
        nets: makes nets that must be trained; None: the graph is all there is.
        passes: that led to ``reference``.
        arch: of the machines to be served; this one's, unless given.
        isa: instruction sets of this machine; found out, unless given.

    Raises:
        JobFailed: the samples are faulty, or others each time they are read.
    """
    with TemporaryDirectory(prefix="argosy-search-") as scratch:
        kept = cache or Cache(Path(scratch) / "cache")
        machine = arch or platform.machine()
        schemes, ladder = static_schemes(machine, host_isa() if isa is None else isa)
        maker = Maker(
            kept, Path(scratch), data.train, optimize.calibration_samples, machine, ladder
        )
        maker.add(Point(), Net(reference, tuple(passes)))
        if optimize.int8 and maker.wants_dynamic():
            schemes = ("dynamic", ladder)
        rules = Rules(
            optimize=optimize,
            schemes=schemes if data.train is not None else ("dynamic",),
            ladder=ladder if data.train is not None else None,
            prune=nets is not None,
            qat=nets is not None and nets.can_train,
        )
        return _Search(rules, data, maker, kept, nets).run(folder)


class _Search:
    """One search, from its first trial to the files that are kept."""

    def __init__(
        self, rules: Rules, data: Data, maker: Maker, cache: Cache, nets: Nets | None
    ) -> None:
        self._rules, self._data, self._maker = rules, data, maker
        self._cache, self._nets = cache, nets
        self._trials: dict[Point, Trial] = {}
        self._known: dict[Point, Known] = {}
        self._scans: dict[Point, tuple[tuple[str, ...], ...]] = {}
        self._slow: dict[Point, tuple[str, ...]] = {}
        self._reference_ms: float | None = None
        chosen = rules.optimize
        # Without these, nothing that is tried depends on what the others cost.
        self._steered = bool(chosen.classes or chosen.prune or chosen.budget != Budget())

    def run(self, folder: Path) -> Optimized:
        """Step by step, then the finalists side by side."""
        step = next_step(self._rules, self._state())
        while not isinstance(step, Done):
            self._do(step)
            step = next_step(self._rules, self._state())
        if step.exhausted:
            count = len(self._trials)
            log.warning("the search ends at optimize.max_trials, %d; more could be tried", count)
        selection = self._finals()
        tell(selection, self._known)
        return self._placed(selection, folder)

    def _state(self) -> State:
        return State(self._known, self._scans, self._slow)

    def _do(self, step: Step) -> None:
        beat()
        match step:
            case Try(points):
                self._try(points)
            case Scan(point):
                log.info("%s: looking for the layers that do the damage", point.id)
                self._scans[point] = self._maker.scan(point)
            case Profile(point):
                self._slow[point] = self._maker.slow(point, self._trials[point], self._data.head)

    def _try(self, points: Sequence[Point]) -> None:
        for key, trial in self._ready(points):
            done = self._scored(key, trial)
            size = done.path.stat().st_size if done.path is not None else None
            self._trials[trial.point] = replace(done, size=size)
            self._learn(trial.point)
        worth = [p for p in points if p != Point() and accurate(self._rules, self._known[p])]
        if worth and self._steered:
            self._measure([Point(), *worth], rounds=QUICK_ROUNDS, starts=1)
        for one in points:
            log.info("%s", self._line(one))
        scored = self._trials[Point()].scored
        if Point() in points and scored is not None:
            few = too_few(scored.accuracy.n, self._rules.optimize)
            if few is not None:
                log.warning("%s", few)

    def _ready(self, points: Sequence[Point]) -> Iterator[tuple[str, Trial]]:
        """Each point's trial, with the name to keep it under."""
        plain = [p for p in points if p == p.plain and p != Point()]
        looped = [p for p in points if p.scheme == "qat"]
        waiting = {*plain, *looped}
        if self._nets is not None and plain:
            log.info("pruning: %s", ", ".join(p.id for p in plain))
            yield from self._netted(plain, self._nets.pruned([p.pruned for p in plain]))
        if self._nets is not None and looped:
            log.info("training with quantization in the loop: %s", ", ".join(p.id for p in looped))
            yield from self._netted(looped, self._nets.trained([p.pruned for p in looped]))
        for point in points:
            if point not in waiting:
                yield self._maker.make(point, self._judged())

    def _netted(
        self, points: Sequence[Point], found: Iterator[tuple[float, Net | TrialFailed]]
    ) -> Iterator[tuple[str, Trial]]:
        """Trials of nets that were trained, as each is done."""
        by_share = {point.pruned: point for point in points}
        for share, net in found:
            point = by_share.pop(share)
            if isinstance(net, Net):
                self._maker.add(point, net)
                yield self._maker.make(point, self._judged())
            elif net.transient:
                raise JobFailed(net.cause, net.detail)
            else:
                yield "", Trial(point, failed=net.reason)
        for point in by_share.values():
            yield "", Trial(point, failed="nothing came of its training")

    def _judged(self) -> str:
        reference = self._trials.get(Point())
        return reference.scored.accuracy.set_sha256 if reference and reference.scored else ""

    def _scored(self, key: str, trial: Trial) -> Trial:
        """The trial with its accuracy on the validation split; kept."""
        if trial.failed is not None or trial.scored is not None or trial.path is None:
            return trial
        try:
            found = score(open_session(trial.path), self._data.validation)
        except WorkerError:
            raise
        except Exception as error:
            if trial.point == Point():
                raise
            return Trial(trial.point, failed=first_line(error))
        check_same(
            {self._judged() or found.accuracy.set_sha256, found.accuracy.set_sha256}, "validation"
        )
        done = replace(trial, scored=found)
        return done if trial.point == Point() else keep(self._cache, key, done)

    def _measure(self, points: Sequence[Point], *, rounds: int, starts: int) -> None:
        """Time these in turn; what cannot be timed has failed."""
        paths = {p: path for p in points if (path := self._trials[p].path) is not None}
        found = costs(
            {p.id: path for p, path in paths.items()},
            self._data.head[:MEASURED_SAMPLES],
            rounds=rounds,
            starts=starts,
        )
        beat()
        reference = found[Point().id]
        if isinstance(reference, Failure):
            detail = f"the net in FP32 cannot be measured: {reference.reason}"
            raise JobFailed(JobCause.INTERNAL, detail)
        if self._reference_ms is None:
            self._reference_ms = reference.cpu_ms
        for point in paths:
            self._costed(point, found[point.id], self._reference_ms / max(1e-6, reference.cpu_ms))

    def _costed(self, point: Point, cost: Cost | Failure, scale: float) -> None:
        trial = self._trials[point]
        if isinstance(cost, Failure):
            self._trials[point] = replace(trial, failed=f"it cannot be measured: {cost.reason}")
        else:
            self._trials[point] = replace(trial, cost=cost)
        self._learn(point, scale)

    def _learn(self, point: Point, scale: float = 1.0) -> None:
        """Hand a trial to the plan. scale: of its times, to those of the first measuring."""
        reference = self._trials[Point()].scored
        confidence = self._rules.optimize.confidence
        outcomes = reference.outcomes if reference else None
        self._known[point] = self._trials[point].known(outcomes, confidence, scale)

    def _finals(self) -> Selection:
        """What would be kept is measured once more, thoroughly and all in turn."""
        optimize = self._rules.optimize
        before = select(self._known, optimize)
        new = [p for p, k in self._known.items() if k.figures is None and accurate(self._rules, k)]
        points = list(dict.fromkeys([*(known.point for known in before.kept), *new]))
        self._reference_ms = None
        self._measure(points, rounds=ROUNDS, starts=STARTS)
        after = select({point: self._known[point] for point in points}, optimize)
        earlier = {p: reason for p, reason in before.rejected.items() if p not in points}
        return replace(after, rejected={**earlier, **after.rejected})

    def _line(self, point: Point) -> str:
        optimize, known = self._rules.optimize, self._known[point]
        reference = self._known[Point()].figures
        reason = fault(known, reference, optimize)
        if known.figures is None and accurate(self._rules, known):
            reason = None  # it is measured when all are there
        return line(known, reference, reason)

    def _placed(self, selection: Selection, folder: Path) -> Optimized:
        """The kept files under their names, with their accuracy on the test split."""
        tests: dict[Point, Scored] = {}
        for known in selection.kept:
            trial = self._trials[known.point]
            if trial.path is None:
                continue
            path = folder / f"model-{known.point.id}.onnx"
            if path.resolve() != trial.path.resolve():
                write_atomic(path, trial.path.read_bytes())
            self._trials[known.point] = replace(trial, path=path)
            if self._data.test is not None:
                tests[known.point] = score(open_session(path), self._data.test)
                beat()
        check_same({one.accuracy.set_sha256 for one in tests.values()}, "test")
        return Optimized(selection, self._trials, self._known, tests)
