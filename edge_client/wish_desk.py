"""The agent's side of ``argosy-edge defer`` and ``proceed``."""

from __future__ import annotations

from edge_client import errand, wish
from edge_client.device import Device
from edge_client.errand import Answered
from edge_client.errors import WishError
from edge_client.updater import Updater


class WishDesk:
    """Of one agent. Used from the thread that decides."""

    def __init__(self, device: Device, updater: Updater) -> None:
        """Put together."""
        self._device, self._updater = device, updater

    def look(self) -> None:
        """See whether somebody asks; a request stays until it is answered.

        Raises:
            JournalError: it could not be written down; look again.
            OSError: the answer could not be written; look again.
        """
        home = self._device.home
        asked = errand.read_asked(home.wish, wish.Wish)
        if asked is None:
            return
        now = self._device.server_time()
        try:
            event = wish.decide(asked, self._updater.state, now)
        except WishError as error:
            words = Answered(id=asked.id, error=str(error), hint=error.hint)
        else:
            self._updater.apply(event)
            words = Answered(id=asked.id, said=wish.in_words(event, asked, now))
        errand.answer(home.wish, home.wished, words)
