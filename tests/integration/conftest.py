"""What tests of one agent share: a broker with mutual TLS, who signs, a gateway that can misbehave.

A file that asks for more of its broker defines its own under the same name.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.edge_trust import Signer
from tests.fakes.gateway import Broker, Ca, Gateway


@pytest.fixture(scope="module")
def broker(tmp_path_factory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("broker"), Ca())
    broker.prepare()
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture
def gateway(broker, signer) -> Iterator[Gateway]:
    gateway = Gateway(broker, signer)
    yield gateway
    gateway.close()
