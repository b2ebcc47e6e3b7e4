"""Evidence in words that an operator reads without knowing statistics."""

from __future__ import annotations

import pytest

from orchestrator.domain.judge import ends, hopeless
from schemas.errors import DeviceCause
from schemas.evidence import sentence
from schemas.gates import Evidence, FailureGate, FailureKind, Gates, Metric
from schemas.rollout import ExecState


def of(metric, value, threshold, **more):
    base = {"device_class": "cam", "devices": 12, "controls": 20, "look": 1, "ok": None, "n": 12}
    return Evidence(metric=metric, value=value, threshold=threshold, **{**base, **more})


@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        (
            of(Metric.ACCURACY, 0.062, 0.05, ok=False, low=0.041, high=0.09),
            (
                "accuracy of cam got 6.2 points worse on 12 devices than on 20 that kept their"
                " version; that is no luck (it is at least 4.1 points); you allowed 5 points, and"
                " half of it (2.5 points), shown for certain beside others, stops a wave"
            ),
        ),
        (
            of(Metric.ERROR_RATE, -0.01, 0.02, ok=True, low=-0.03, high=0.005),
            (
                "error rate of cam got 1 points better on 12 devices than on 20 that kept their"
                " version; luck included it is at most 0.5 points, and 2 points are tolerated"
            ),
        ),
        (
            of(Metric.RSS, 1.6, 1.5, ok=False, low=1.55, high=1.7, controls=0),
            (
                "memory of cam became 1.6 times as high on 12 devices as before;"
                " luck included it is at least 1.55 times, and 1.5 times are tolerated"
            ),
        ),
        (
            of(Metric.CLASS_MIX, 0.1, 0.2, low=-0.05, high=0.25),
            (
                "mix of answers of cam moved by 10 points more on 12 devices than on 20 that kept"
                " their version; luck may have made it anything from -5 points to 25 points,"
                " and 20 points are tolerated"
            ),
        ),
        (
            of(Metric.SILENCE, 0.5, 0.2, ok=False, low=0.25, high=0.8, control=0.05),
            (
                "50 % of 12 devices of cam fell silent, 5 % of 20 that kept their version;"
                " that is no luck, and 10 points more than there stop a wave"
            ),
        ),
        (
            of(Metric.SHADOW_AGREEMENT, 0.6, 0.9, ok=False, low=0.5, high=0.7, controls=0),
            (
                "60 % of the answers of cam were those of the version that serves, on 12 devices;"
                " luck included it is at most 70 %, and 90 % are wanted"
            ),
        ),
        (
            of(Metric.ACCURACY, None, 0.05, note="3 devices of the wave can be judged"),
            "accuracy of cam is not known: 3 devices of the wave can be judged",
        ),
        (
            Evidence(
                metric="failure_rate", value=0.2, threshold=0.1, n=10, ok=False, note="disk_full 2"
            ),
            "devices that failed: 20 %, of 10 devices; at most 10 % are tolerated (disk_full 2)",
        ),
        (
            Evidence(metric="rolled_back_rate", value=0.2, threshold=0.1, n=1, ok=False),
            "devices that ended as rolled back: 20 %, of 1 device; at most 10 % are tolerated",
        ),
        (
            Evidence(metric="min_inferences", value=12, threshold=50, n=30, ok=None),
            "inferences of the device with the fewest: 12, of 30 devices; at least 50 are wanted",
        ),
    ],
    ids=lambda one: one.metric if isinstance(one, Evidence) else "",
)
def test_a_sentence_names_what_was_measured_where_against_what_and_what_decided(evidence, said):
    assert sentence(evidence) == said


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("ok", [True, False, None])
@pytest.mark.parametrize("controls", [0, 20])
def test_no_sentence_needs_statistics_to_be_read(metric, ok, controls):
    limits = {"low": 0.5, "high": 3.0, "control": 0.1 if controls else None}
    text = sentence(of(metric, 1.5, 2.0, ok=ok, controls=controls, **limits))
    for word in ("alpha", "interval", "cohort", "null", "None", "_", "n=", "low is"):
        assert word not in text
    assert "12 devices" in text


def test_rates_of_one_verdict_say_of_whom_each_is():
    gates = Gates(
        max_failure_rate=0.1,
        failures=(FailureGate(kind=FailureKind.ROLLED_BACK, max_rate=0.1, min_devices=5),),
    )
    counts = {ExecState.ROLLED_BACK: 6, ExecState.SUCCEEDED: 4, ExecState.DOWNLOADING: 10}
    whole, ended = hopeless(ends(counts, {}, {DeviceCause.BOOT_LOOP: 6}), gates)
    assert sentence(whole).startswith("devices that failed: 30 %, of 20 devices;")
    assert whole.note == "of the whole wave; boot_loop 6"
    assert sentence(ended).startswith("devices that ended as rolled back: 60 %, of 10 devices;")
    assert ended.note == "of those that had ended by then; boot_loop 6"
