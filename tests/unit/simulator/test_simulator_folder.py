"""The folder of a simulated fleet: one run at a time, and nothing that a smaller run forgets."""

from __future__ import annotations

import pytest

from orchestrator.errors import Invalid
from orchestrator.simulator import enroll
from orchestrator.simulator.identity import ROOTS, Folder, Kept
from tests.fakes.gateway import Ca


def test_two_runs_do_not_share_their_devices(tmp_path):
    first = Folder(tmp_path)
    with pytest.raises(Invalid, match="another run simulates the devices"):
        Folder(tmp_path)
    first.close()
    Folder(tmp_path).close()


def test_a_smaller_run_keeps_what_the_others_did(tmp_path):
    large = Folder(tmp_path)
    large.keep({"dev_a": Kept(floor=7), "dev_b": Kept(floor=9)})
    large.close()
    small = Folder(tmp_path)
    small.keep({"dev_a": Kept(floor=8)})
    assert {name: kept.floor for name, kept in small.state().items()} == {"dev_a": 8, "dev_b": 9}
    small.close()


def test_authorities_that_are_gone_are_one_line(tmp_path):
    folder = Folder(tmp_path)
    with pytest.raises(Invalid, match=ROOTS):
        _ = folder.roots
    folder.close()


def test_identities_of_a_platform_that_was_replaced_are_told(monkeypatch):
    old, new = Ca().pem, Ca().pem
    read = enroll.x509.load_pem_x509_certificates
    monkeypatch.setattr(enroll, "_roots", lambda _server: (new, read(new)))
    enroll.check_roots("http://127.0.0.1:1", new + old)
    with pytest.raises(Invalid, match="another platform"):
        enroll.check_roots("http://127.0.0.1:1", old)
