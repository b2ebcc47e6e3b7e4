"""What operators see of the transfer."""

from __future__ import annotations

from dataclasses import replace

from schemas.access import Role
from schemas.api import Page, TransferProcess


def test_the_processes_and_what_they_have_sent_are_shown(platform, admin):
    assert admin.get("/v1/transfers").json()["items"] == []
    beats = (TransferProcess(name="a", unicast_bytes=5), TransferProcess(name="b", busy=True))
    state = platform.app.state
    state.context = replace(state.context, transfers=lambda: beats)
    found = Page[TransferProcess].model_validate(admin.get("/v1/transfers").json())
    assert found.items == beats


def test_they_are_not_shown_to_programs(platform):
    agent = platform.client(platform.key(Role.WORKER))
    assert agent.get("/v1/transfers").status_code == 403
