"""Nets that must be trained: what was trained once is not trained again."""

from __future__ import annotations

import pytest
import torch

from schemas.jobfile import JobSpec
from workers.optimization.cache import Cache
from workers.optimization.executor import LocalExecutor
from workers.optimization.pipeline import Training
from workers.optimization.searching import nets
from workers.optimization.searching.make import Net
from workers.task import load_task

DIGITS = "workers.recipes.digits:Digits"
CONFIG = {"width": 0.25}


class Killed(BaseException):
    """The process ends here."""


class NoExecutor:
    """Has nothing to do."""

    def map(self, _function, arguments):
        assert not arguments, "this was trained before"
        return iter(())


@pytest.fixture
def trained(tmp_path):
    task = load_task(DIGITS, CONFIG, 0)
    spec = JobSpec(
        name="digits",
        task=DIGITS,
        config=CONFIG,
        stop={"max_epochs": 1, "require_target": False},
        optimize={"prune": [0.5], "finetune_epochs": 0},
    )
    training = Training(task.model().state_dict(), "a" * 64, "c" * 64, 1)
    samples = torch.stack([task.splits().train[i][0] for i in range(4)]).numpy()

    def make(executor) -> nets.TrainedNets:
        return nets.TrainedNets(
            task,
            spec,
            training.checkpoint(),
            training.weights_sha256,
            executor=executor,
            cache=Cache(tmp_path / "cache"),
            samples=samples,
            scratch=tmp_path,
        )

    return make


def test_a_search_killed_while_it_exports_does_not_train_again(trained, monkeypatch) -> None:
    real = nets.export

    def killed(*_args, **_more):
        raise Killed

    monkeypatch.setattr(nets, "export", killed)
    with pytest.raises(Killed):
        list(trained(LocalExecutor()).pruned([0.5]))
    monkeypatch.setattr(nets, "export", real)
    ((share, net),) = trained(NoExecutor()).pruned([0.5])
    assert share == 0.5
    assert isinstance(net, Net)
    assert [step.name for step in net.passes][-1] == "export"
    # Nor is it exported once more.
    monkeypatch.setattr(nets, "export", killed)
    assert list(trained(NoExecutor()).pruned([0.5])) == [(0.5, net)]
