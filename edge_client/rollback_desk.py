"""The agent's side of ``argosy-edge rollback``: takes the request up, and answers it."""

from __future__ import annotations

import sqlite3

from edge_client import rollback
from edge_client.device import Device
from edge_client.errand import Answered
from edge_client.errors import EdgeError, RollbackError
from edge_client.rollback import Asked
from edge_client.serving import on_trial
from edge_client.slots import read_pointers
from edge_client.updater import Updater


class RollbackDesk:
    """Of one agent. Used from the thread that decides."""

    def __init__(self, device: Device, updater: Updater) -> None:
        self._device, self._updater = device, updater

    def look(self) -> None:
        """See whether somebody asks; a request stays until it is answered.

        Raises:
            OSError: the answer could not be written; look again.
        """
        home = self._device.home
        asked = rollback.read_asked(home)
        if asked is None:
            return
        try:
            done = self._done(asked)
        except RollbackError as error:
            refused = Answered(id=asked.id, error=str(error), hint=error.hint)
            rollback.answer(home, refused)
            return
        if done:
            rollback.answer(home, Answered(id=asked.id))

    def _done(self, asked: Asked) -> bool:
        if self._is_done(asked):
            return True
        pointers = read_pointers(self._device.home.pointer)
        event = rollback.decide(asked, self._updater.state, pointers)
        if event is None or not self._updater.settled:
            return False
        with self._device.runtime.busy.doing("a load", asked.fallback.sha256):
            rollback.require_loadable(self._device.store, asked.fallback)
        try:
            self._updater.apply(event)
        except (EdgeError, OSError, sqlite3.Error) as error:
            # It is done again: the request stays until the pointer says so.
            self._device.problems.note(f"the model before is not put back yet: {error}")
        return self._is_done(asked)

    def _is_done(self, asked: Asked) -> bool:
        """Whether it serves, the pointer says so, and so does the journal."""
        model = asked.slot.model
        if on_trial(self._updater.state) == model:
            return False
        pointers = read_pointers(self._device.home.pointer)
        serving = self._device.runtime.slot(model)
        return rollback.is_done(asked, pointers) and serving == asked.fallback
