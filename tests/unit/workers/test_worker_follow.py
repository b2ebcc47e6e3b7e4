"""What the agent does about a driver, without a cluster and without a clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.job import HeartbeatReply, JobCause
from workers.agent.follow import (
    AWAY_SECONDS,
    MAX_BEAT,
    STOP_GRACE,
    Do,
    DriverState,
    Followed,
    Seen,
    beaten,
    cause_of,
    detail_of,
    lost,
    step,
    unseen,
)
from workers.order import NO_ENVIRONMENT, SAID_FAILED

ACTIVE = Seen(DriverState.ACTIVE)
FOLLOWED = Followed(30.0)
CANCELLED = beaten(FOLLOWED, HeartbeatReply(cancel=True, lease_seconds=30.0))


def test_a_stop_is_asked_for_and_repeated_with_force_until_it_is_heard() -> None:
    job, actions = step(CANCELLED, ACTIVE, 100.0)
    assert actions == (Do.STOP, Do.BEAT)
    job, actions = step(job, ACTIVE, 100.0 + STOP_GRACE - 0.1)
    assert Do.STOP not in actions
    for n in (1, 2):
        job, actions = step(job, ACTIVE, 100.0 + n * STOP_GRACE)
        assert actions[:2] == (Do.KILL, Do.STOP)
    assert MAX_BEAT + STOP_GRACE < 10, "a cancel ends every process within 10 s"


def test_the_lease_outlives_a_cluster_that_is_away_for_a_while_only() -> None:
    job, actions = unseen(FOLLOWED, 100.0)
    assert actions == (Do.BEAT,)
    job, actions = unseen(job, 100.0 + AWAY_SECONDS)
    assert actions == ()
    job, _ = step(job, ACTIVE, 500.0)
    assert job.away_since is None
    assert unseen(job, 600.0)[1] == (Do.BEAT,)


@pytest.mark.parametrize("job", [CANCELLED, lost(FOLLOWED)])
def test_what_is_to_end_is_killed_here_while_the_cluster_is_away(job) -> None:
    job, actions = unseen(job, 100.0)
    assert actions == (Do.KILL, Do.STOP)
    assert unseen(job, 101.0)[1] == ()
    assert unseen(job, 100.0 + STOP_GRACE)[1] == (Do.KILL, Do.STOP)


@pytest.mark.parametrize(
    ("seen", "cause", "says"),
    [
        (Seen(DriverState.ENDED, NO_ENVIRONMENT, "no wheel"), JobCause.ENVIRONMENT, "no wheel"),
        (Seen(DriverState.ENDED, None), JobCause.DRIVER_DIED, "was killed"),
        (Seen(DriverState.ENDED, 1, "x"), JobCause.DRIVER_DIED, "its last line: x"),
        (Seen(DriverState.MISSING), JobCause.DRIVER_DIED, "started anew"),
        (Seen(DriverState.ENDED, None, "bad", JobCause.ENVIRONMENT), JobCause.ENVIRONMENT, "bad"),
    ],
)
def test_an_end_is_explained(seen, cause, says) -> None:
    assert cause_of(seen) is cause
    assert says in detail_of(seen)


@pytest.mark.parametrize("code", [0, 1, SAID_FAILED])
def test_the_api_says_whether_a_driver_spoke_not_its_exit_code(code: int) -> None:
    # Code of the user's may call os._exit(0) in the driver.
    job, actions = step(FOLLOWED, Seen(DriverState.ENDED, code), 1.0)
    assert actions == (Do.KILL, Do.BEAT), "was it cancelled meanwhile, or has it spoken?"
    assert step(job, Seen(DriverState.ENDED, code), 2.0)[1] == (Do.KILL, Do.SAY, Do.FORGET)
    ended = step(replace(job, lost=True), Seen(DriverState.ENDED, code), 2.0)
    assert ended[1] == (Do.KILL, Do.FORGET)
