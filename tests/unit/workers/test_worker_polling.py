import asyncio

import pytest
from ray.train.v2._internal.execution.controller.controller import TrainController

from workers.distributed import polling


@pytest.mark.parametrize(
    ("epoch", "seconds"), [(0.0, 0.1), (0.5, 0.1), (3.0, 0.3), (10.0, 1.0), (3600.0, 1.0)]
)
def test_reports_wait_a_tenth_of_an_epoch_at_most(epoch: float, seconds: float) -> None:
    assert polling.interval(epoch) == pytest.approx(seconds)


def test_the_controller_polls_at_the_pace_of_its_epochs(monkeypatch) -> None:
    class Controller:
        _health_check_interval_s = 2.0

        async def _poll_workers(self) -> float:
            return self._health_check_interval_s

    monkeypatch.setattr(polling, "_seconds", [polling.SHORTEST])
    name = "ray.train.v2._internal.execution.controller.controller.TrainController"
    monkeypatch.setattr(name, Controller)
    polling.install()
    polling.install()
    found = [asyncio.run(Controller()._poll_workers())]
    polling.heard(4.0)
    found.append(asyncio.run(Controller()._poll_workers()))
    assert found == pytest.approx([0.1, 0.4])


def test_ray_train_still_has_what_is_paced() -> None:
    assert asyncio.iscoroutinefunction(TrainController._poll_workers)
    assert "_health_check_interval_s" in TrainController._poll_workers.__code__.co_names
