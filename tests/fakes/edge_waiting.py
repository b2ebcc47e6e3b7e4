"""Updates that wait on a device on its bench, and what tests do to them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from edge_client import errand
from edge_client.states import Ended
from edge_client.wish import Wish
from edge_client.wish_desk import WishDesk
from schemas.pace import MaintenanceWindow, Mode, Urgency, WindowCovers
from schemas.rollout import Command, ExecState
from schemas.topics import Down
from tests.fakes.edge_bench import NEW, Bench
from tests.fakes.edge_models import samples

S = ExecState
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
NIGHT = MaintenanceWindow(cron="0 2 * * *", minutes=60)
NIGHT_ALL = NIGHT.model_copy(update={"covers": WindowCovers.ALL})
OPENS = datetime(2026, 6, 2, 2, tzinfo=UTC)
SOFT, WORD = Mode(urgency=Urgency.SOFT), Mode(urgency=Urgency.DOWNLOAD_ONLY)
NEW_BYTES = sum(len(data) for data in NEW.files.values())


def rounds(bench: Bench, n: int = 40) -> None:
    for _ in range(n):
        bench.go_on(NEW, samples(2))


def again(bench: Bench) -> None:
    """Killed, and started anew."""
    bench.runtime.shadow(None)
    bench.die()
    bench.start()


def tell(bench: Bench, kind: str, key=None) -> None:
    execution, attempt = key or bench.updater.state.offer.key
    command = Command(kind=kind, execution=execution, attempt=attempt)
    bench.inbox.take(Down.CMD, command.model_dump_json().encode())


def wish(bench: Bench, kind: str, **more) -> errand.Answered:
    asked = Wish(id="1", kind=kind, **more)
    bench.home.wish.write_text(asked.model_dump_json())
    WishDesk(bench.updater._device, bench.updater).look()
    assert not bench.home.wish.exists()
    return errand.read_answer(bench.home.wished, "1")


def said(bench: Bench) -> list:
    return [(r.state, r.waits_until) for r in bench.reports()]


def succeeded(bench: Bench) -> bool:
    state = bench.updater.state
    return isinstance(state, Ended) and state.outcome is S.SUCCEEDED and bench.serving() == 2
