"""Inference for programs on the device: ``Edge(home).model("digits").predict(x)``.

What the agent has activated, followed as it changes; it works without one, too. What is inferred
here is counted in the device's telemetry, and in a probation, as if the agent had done it.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

from edge_client.errors import ForkedError, NoModelError
from edge_client.following import Follower
from edge_client.inference import Inputs, Loaded, Prediction
from edge_client.ops import Finding, Postprocessor, Preprocessor, Raw
from edge_client.runtime import Runtime
from edge_client.sessions import SessionSettings
from edge_client.settings import Home
from edge_client.slots import Slot, require_pointers
from edge_client.user_telemetry import UserTelemetry, forked
from schemas.ids import Name

DEFAULT_HOME = "~/.argosy-edge"


def home_of(path: str | Path | None = None) -> Home:
    """The home: what is given, else ``$ARGOSY_EDGE_HOME``, else ``~/.argosy-edge``."""
    return Home(Path(path or os.environ.get("ARGOSY_EDGE_HOME") or DEFAULT_HOME).expanduser())


class Edge:
    """A device, by its home folder."""

    def __init__(self, home: str | Path | None = None) -> None:
        self._home = home_of(home)

    def models(self) -> tuple[Slot, ...]:
        """What is active on the device, sorted by model.

        Raises:
            PointerError: it cannot be read, as by another user than the agent's.
        """
        return require_pointers(self._home.pointer).active

    def model(
        self,
        name: Name | None = None,
        *,
        telemetry: bool = True,
        session: SessionSettings | None = None,
    ) -> ServedModel:
        """An active model, loaded and warm.

        Args:
            name: which one; may be left out where the device has one.
            telemetry: count what is inferred. Where the home cannot be written it is not counted,
                and a warning in the log says so.
            session: how it runs; as for small machines when left out.

        Raises:
            NoModelError: there is none yet, or none of that name.
            UsageError: there are several, and none was named.
            UpdateError: its files are damaged or may not be read, or it cannot be loaded here.
        """
        return ServedModel(self._home, name, telemetry=telemetry, session=session)


class ServedModel:
    """An active model of the device, whichever version it is at each call. Thread-safe.

    It has a thread that follows the device, and one that counts: close it, use it in ``with``, or
    leave that to the end of the program. It is of no use in a child that the program forks: there
    it says so, and the child opens its own.
    """

    def __init__(
        self,
        home: Home,
        name: Name | None = None,
        *,
        telemetry: bool = True,
        session: SessionSettings | None = None,
    ) -> None:
        """As ``Edge.model``."""
        self._process = os.getpid()
        pointers = require_pointers(home.pointer)
        self.name: Name = pointers.one(name, "that is meant") or ""
        if pointers.of(self.name).active is None:
            raise _no_model(home, name, pointers.active)
        self._telemetry = UserTelemetry(home, wanted=telemetry)
        self._runtime = Runtime(self._telemetry.meter, session)
        self._follower = Follower(home, self._runtime, self.name)
        try:
            self._follower.first()
        except BaseException:
            self._telemetry.close()
            raise
        self._follower.start()
        self._steps: tuple[Loaded, Preprocessor, Postprocessor] | None = None
        self._end = weakref.finalize(self, _garbage, self._follower, self._telemetry)
        self._end.atexit = False  # ``_at_exit`` does it
        _open.add(self)

    @property
    def slot(self) -> Slot:
        """Which version and variant answers now."""
        slot = self._runtime.slot(self.name)
        if slot is None:
            raise self._gone()
        return slot

    def predict(self, inputs: Inputs, *, truth: int | None = None) -> Prediction:
        """Infer.

        Args:
            inputs: arrays by input name, or the one array of a model with one input;
                dtype and shape as in the signature, the batch first.
            truth: the true class of a batch of one, where it is known; it is counted.

        Raises:
            InputError: an input does not fit; says which, what was wanted and given.
            InferenceError: the model failed, or gave NaN or an infinity.
            NoModelError: it is not active on the device any more.
            ForkedError: this is a child of the process that opened it.
        """
        try:
            return self._runtime.predict(inputs, model=self.name, truth=truth)
        except NoModelError:
            raise self._gone() from None

    def classify(self, raw: Raw) -> list[Finding]:
        """Infer with the steps that the manifest names before and after the graph.

        Args:
            raw: a sample or several, as ``Preprocessor.prepare`` takes them: the bytes of an
                image, an array, a list of such.

        Returns:
            What the model says of each sample.

        Raises:
            LoadError: a step cannot be done here, as for want of an extra.
            InputError, InferenceError, NoModelError, ForkedError: as ``predict``.
        """
        loaded = self._runtime.loaded(self.name)
        if loaded is None:
            raise self._gone()
        steps = self._steps
        if steps is None or steps[0] is not loaded:
            manifest = loaded.manifest
            steps = (loaded, Preprocessor(manifest), Postprocessor(manifest))
            self._steps = steps
        _, before, after = steps
        feed = loaded.model.check(before.prepare(raw))
        n = loaded.model.size(feed)
        # By the version whose steps were done, for all that another may serve meanwhile.
        outputs = self._runtime.infer(loaded, feed, n=n)
        return after.finish(loaded.model.answer(outputs, n, loaded.slot))

    def close(self) -> None:
        """Stop following, and write what was counted. A second call does nothing."""
        if self._end.detach() is None:
            return
        self._follower.stop()
        self._runtime.swap(self.name, None)
        self._telemetry.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def forked(self) -> None:
        """In a child of the process: nothing is answered, and nothing of the parent's ended."""
        self._end.detach()
        self._runtime.forked()

    def _gone(self) -> Exception:
        if self._process != os.getpid():
            msg = "this model was opened before the process was forked"
            return ForkedError(msg, hint="open it in the child: Edge().model(...)")
        if not self._end.alive:
            return NoModelError("this model was closed")
        return NoModelError(f"model {self.name} is not active on this device any more")


_open: weakref.WeakSet[ServedModel] = weakref.WeakSet()


def _garbage(follower: Follower, telemetry: UserTelemetry) -> None:
    """Nobody uses a model any more, which was found out in the middle of anything.

    That may be one of the threads that are to be ended, or hold a lock that this needs.
    """
    args = (follower, telemetry)
    threading.Thread(target=_end, args=args, name="close a model", daemon=False).start()


def _end(follower: Follower, telemetry: UserTelemetry) -> None:
    follower.stop()
    telemetry.close()


def _at_exit() -> None:
    for one in tuple(_open):
        one.close()


atexit.register(_at_exit)


def _in_child() -> None:
    """After a fork: threads, locks and mapped files of the parent are not to be used."""
    for one in tuple(_open):
        one.forked()
    forked()


os.register_at_fork(after_in_child=_in_child)


def _no_model(home: Home, name: Name | None, active: tuple[Slot, ...]) -> NoModelError:
    if active and name is not None:
        there = ", ".join(slot.model for slot in active)
        return NoModelError(f"model {name} is not active in {home.root}; there is {there}")
    msg = f"no model is active in {home.root} yet"
    return NoModelError(msg, hint="start a rollout to this device; see `argosy-edge status`")
