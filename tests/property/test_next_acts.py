"""What an operator is offered is accepted: in every state, whatever else stands."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import acts, rollout
from orchestrator.domain.acts import Act
from orchestrator.domain.next_acts import EDIT, RETRY, Standing, next_acts
from orchestrator.domain.rollout import ROLLOUT_TERMINAL, Happened, Refuse, Rollout, RolloutEvent
from schemas.rollout import PauseReason, RolloutState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EVENTS = {
    Act.START: RolloutEvent.START,
    Act.APPROVE: RolloutEvent.START,
    Act.PAUSE: RolloutEvent.PAUSE,
    Act.RESUME: RolloutEvent.RESUME,
    Act.ABORT: RolloutEvent.ABORT,
    Act.ROLLBACK: RolloutEvent.ROLL_BACK,
}

rollouts = st.sampled_from(
    [Rollout(s) for s in RolloutState if s is not RolloutState.PAUSED]
    + [Rollout(RolloutState.PAUSED, why) for why in PauseReason]
)
standings = st.builds(
    Standing,
    rollout=rollouts,
    is_rollback=st.booleans(),
    readable=st.booleans(),
    dynamic=st.booleans(),
    left=st.booleans(),
    failed=st.booleans(),
    may_pass=st.booleans(),
    leads=st.booleans(),
)


@given(standings)
def test_whatever_is_offered_is_accepted(standing):
    before = standing.rollout
    for name in next_acts(standing):
        if name == EDIT:
            assert before.state not in ROLLOUT_TERMINAL | {RolloutState.AWAITING_APPROVAL}
            continue
        if name == RETRY:
            assert rollout.no_retry(before.state) is None
            assert standing.failed
            assert standing.readable
            continue
        act = Act(name)
        assert acts.judge(act, before.state, is_rollback=standing.is_rollback) is True
        if (kind := EVENTS.get(act)) is not None:
            happened = Happened(kind, may_pass=standing.may_pass)
            after, said = rollout.step(before, happened, NOW)
            assert after != before
            assert not any(isinstance(one, Refuse) for one in said)


@given(standings)
def test_a_rollout_that_is_not_over_can_be_ended_and_one_that_is_over_offers_nothing(standing):
    over = standing.rollout.state in ROLLOUT_TERMINAL
    assert (Act.ABORT in next_acts(standing)) is not over
    assert bool(next_acts(standing)) is not over


def test_what_failures_stopped_is_resumed_only_where_it_may_pass():
    stopped = Rollout(RolloutState.PAUSED, PauseReason.ERROR_THRESHOLD)
    for may_pass, left in product((True, False), repeat=2):
        offered = next_acts(Standing(rollout=stopped, may_pass=may_pass, left=left, failed=True))
        assert ("resume" in offered) is may_pass
        assert ("promote" in offered) is left
        assert {"retry", "edit", "rollback", "abort"} <= set(offered)
