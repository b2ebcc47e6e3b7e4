"""Vectors of messages: one good example of each, as the document shows it, and many bad ones."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from schemas.enroll import JoinToken, fingerprint, renewal_text
from schemas.rollout import Probation
from tests.vectors.transfer import DEVICE, SHA

BOOT = "0f" * 16
EXECUTION = "exe_01jqz3k5m7n9p1r5"
ROLLOUT = "rol_01jqz3k5m7n9p1r6"
OTHER_SHA = hashlib.sha256(b"another").hexdigest()
CSR = (
    "-----BEGIN CERTIFICATE REQUEST-----\nMIHzMIGaAgEAMBgx...\n-----END CERTIFICATE REQUEST-----\n"
)
CHAIN = "-----BEGIN CERTIFICATE-----\nMIIB3jCCAYSgAwIB...\n-----END CERTIFICATE-----\n"
CSR_SHA = hashlib.sha256(CSR.encode()).hexdigest()
TOKEN = JoinToken("tok_01jqz3k5m7n9p1r8", "s" * 43, SHA, OTHER_SHA)
SIGNATURE = "5e" * 32

HARDWARE = {
    "arch": "aarch64",
    "isa": ["dotprod", "neon"],
    "board": "Raspberry Pi 5 Model B",
    "cpus": 4,
    "ram_mb": 8063,
    "providers": ["CPUExecutionProvider"],
    "ort": "1.23.2",
    "agent": "my-client 0.1",
}
ACTIVE = {"model": "digits", "version": 2, "variant": "int8", "sha256": OTHER_SHA}

EXAMPLES: dict[str, dict[str, Any]] = {
    "EnrollRequest": {"protocol": 1, "token": str(TOKEN), "csr_pem": CSR, "hardware": HARDWARE},
    "EnrollPending": {
        "device": DEVICE,
        "fingerprint": fingerprint(SHA),
        "retry_seconds": 5.0,
    },
    "Enrolled": {
        "device": DEVICE,
        "device_class": "camera",
        "certificate_pem": CHAIN,
        "ca_pem": CHAIN,
        "root_json": '{"signatures":[],"signed":{"_type":"root"}}',
        "broker": {"host": "argosy.example.org", "port": 8883},
        "heartbeat_seconds": 10.0,
    },
    "Problem": {
        "type": "about:blank",
        "title": "token spent",
        "status": 401,
        "code": "token_spent",
        "detail": "this token has been used 1 times, as often as it may be",
        "hint": "make a new token",
        "request_id": "5f2c9a1b7e3d4c60",
    },
    "Birth": {
        "protocol": 1,
        "boot": BOOT,
        "session": 1,
        "uptime": 3.2,
        "hardware": HARDWARE,
        "active": [ACTIVE],
        "certificate": {"serial": "5d1c2b", "roots": [SHA]},
        "execution": {
            "execution": EXECUTION,
            "attempt": 1,
            "state": "DOWNLOADING",
            "seq": 1,
        },
        "rolled_back": False,
    },
    "Death": {"boot": BOOT, "session": 1},
    "Assignment": {
        "device": DEVICE,
        "device_class": "camera",
        "execution": EXECUTION,
        "attempt": 1,
        "rollout": ROLLOUT,
        "model": "digits",
        "version": 3,
        "variant": "int8",
        "manifest_sha256": SHA,
        "probation": Probation().model_dump(mode="json"),
        "mode": {"urgency": "soft", "force_at": None},
        "windows": [
            {
                "cron": "0 2 * * 1-5",
                "minutes": 90,
                "timezone": "Europe/Berlin",
                "covers": "activation",
            }
        ],
        "max_deferral_seconds": 86400.0,
        "jitter_seconds": 600.0,
    },
    "MetadataAsk": {"name": "timestamp.json"},
    "MetadataAnswer": {"name": "timestamp.json", "text": '{"signatures":[],"signed":{}}'},
    "Ask": {
        "kind": "leaves",
        "sha256": SHA,
        "held": [OTHER_SHA],
        "takes": ["patch", "broadcast", "https"],
    },
    "Reply": {
        "kind": "leaves",
        "sha256": SHA,
        "leaves": SHA + OTHER_SHA,
        "size": 100_000,
        "patch": {
            "base": OTHER_SHA,
            "sha256": hashlib.sha256(b"patch").hexdigest(),
            "size": 4096,
            "leaves_sha256": hashlib.sha256(b"leaf").hexdigest(),
        },
        "broadcast": {"batch": 9, "starts_in": 1.5, "rate": 1048576.0, "quiet": 2.0},
        "https": {
            "path": f"/v1/files/{SHA}?device={DEVICE}&expires=1780000000&signature={SIGNATURE}",
            "expires_in": 600.0,
        },
    },
    "Need": {"kind": "chunks", "sha256": SHA, "batch": 12, "ranges": [[0, 2], [5, 6]]},
    "ExecReport": {
        "execution": EXECUTION,
        "attempt": 1,
        "seq": 1,
        "boot": BOOT,
        "uptime": 42.5,
        "state": "DOWNLOADING",
        "bytes_done": 65536,
        "bytes_total": 100_000,
        "bytes_fetched": 70_000,
        "retryable": False,
    },
    "Command": {"kind": "cancel", "execution": EXECUTION, "attempt": 1},
    "TimeAsk": {"id": 7},
    "TimeReply": {"id": 7, "at": 1780315200.25},
    "BenchReport": {
        "model": "digits",
        "version": 3,
        "variant": "int8",
        "sha256": SHA,
        "benchmarks": [
            {
                "host": "Cortex-A76, 4 cores",
                "arch": "aarch64",
                "provider": "CPUExecutionProvider",
                "threads": 1,
                "batch": 1,
                "runs": 400,
                "warm_up": 20,
                "p50_ms": 0.51,
                "p95_ms": 0.6,
                "p99_ms": 0.9,
                "cpu_ms": 0.5,
                "load_ms": 12.0,
                "rss_mb": 45.0,
            }
        ],
        "at": "2026-06-01T12:10:00Z",
    },
    "RenewAsk": {"protocol": 1, "csr_pem": CSR},
    "RenewNow": {"within_seconds": 5.0},
    "Renewed": {"csr_sha256": CSR_SHA, "certificate_pem": CHAIN, "ca_pem": CHAIN},
    "RenewRequest": {
        "protocol": 1,
        "device": DEVICE,
        "certificate_pem": CHAIN,
        "csr_pem": CSR,
        "signed_at": "2026-06-01T12:00:00Z",
        "signature": "MEUCIQ==",
    },
}

MORE_GOOD: list[tuple[str, str, dict[str, Any]]] = [
    ("a manifest is asked for", "Ask", {"kind": "manifest", "sha256": SHA}),
    ("ways that nobody knows yet are no fault", "Ask", {**EXAMPLES["Ask"], "takes": ["pigeon"]}),
    ("fields that nobody knows yet are no fault", "Need", {**EXAMPLES["Need"], "colour": 1}),
    ("64 chunks are the most", "Need", {**EXAMPLES["Need"], "ranges": [[0, 63], [70, 71]]}),
    ("a manifest", "Reply", {"kind": "manifest", "sha256": SHA, "manifest": "{}"}),
    ("a refusal", "Reply", {"kind": "chunks", "sha256": SHA, "error": "there is no such file"}),
    (
        "a patch is being made",
        "Reply",
        {"kind": "leaves", "sha256": SHA, "leaves": SHA, "size": 9, "retry_in": 5.0},
    ),
    (
        "a broadcast is about to begin, unasked",
        "Reply",
        {"kind": "broadcast", "sha256": SHA, "broadcast": EXAMPLES["Reply"]["broadcast"]},
    ),
    ("there is no such metadata", "MetadataAnswer", {"name": "2.root.json"}),
    (
        "a download waits",
        "ExecReport",
        {
            "execution": EXECUTION,
            "attempt": 1,
            "seq": 2,
            "boot": BOOT,
            "uptime": 43.5,
            "state": "DEFERRED",
            "waits_until": "2026-06-02T02:00:00Z",
            "detail": "waits for a maintenance window until 2026-06-02 02:00:00 UTC",
        },
    ),
    ("to go on", "Command", {**EXAMPLES["Command"], "kind": "proceed"}),
    ("a first birth", "Birth", {"boot": BOOT, "session": 1, "uptime": 0, "hardware": HARDWARE}),
    (
        "a time in another zone",
        "BenchReport",
        {**EXAMPLES["BenchReport"], "at": "2026-06-01T14:10:00+02:00"},
    ),
]


def _window(**more: Any) -> dict[str, Any]:
    return {**EXAMPLES["Assignment"]["windows"][0], **more}


BAD: list[tuple[str, str, str, Any]] = [
    ("no ranges", "Need", "ranges", []),
    ("a range that ends before it begins", "Need", "ranges", [[5, 5]]),
    ("more than 64 chunks", "Need", "ranges", [[0, 64], [70, 71]]),
    ("more than 64 ranges", "Need", "ranges", [[2 * i, 2 * i + 1] for i in range(65)]),
    ("a negative index", "Need", "ranges", [[-1, 2]]),
    ("half a chunk", "Need", "ranges", [[0, 1.5]]),
    ("a digest in upper case", "Need", "sha256", SHA.upper()),
    ("a batch beyond 32 bits", "Need", "batch", 2**32),
    ("chunks are not asked for here", "Ask", "kind", "chunks"),
    ("too many held", "Ask", "held", [SHA] * 9),
    ("a way with too long a name", "Ask", "takes", ["x" * 17]),
    ("a link to elsewhere", "Reply", "https", {"path": "//evil.example/v1/x", "expires_in": 5}),
    ("a link with a blank", "Reply", "https", {"path": "/v1/files/a b", "expires_in": 5}),
    ("a broadcast without a rate", "Reply", "broadcast", {"batch": 1, "starts_in": 0, "rate": 0}),
    ("a state that is the server's to say", "ExecReport", "state", "TIMED_OUT"),
    ("a state that there is not", "ExecReport", "state", "DONE"),
    ("attempt 0", "ExecReport", "attempt", 0),
    ("a negative number", "ExecReport", "seq", -1),
    ("a number beyond 63 bits", "ExecReport", "seq", 2**63),
    ("a cause that there is not", "ExecReport", "cause", "bad_luck"),
    ("too much detail", "ExecReport", "detail", "x" * 2001),
    ("a time without a zone", "ExecReport", "waits_until", "2026-06-02T02:00:00"),
    ("a window that nothing opens", "Assignment", "windows", [_window(cron="often")]),
    ("a window that counts seconds", "Assignment", "windows", [_window(cron="0 0 2 * * *")]),
    ("a window without an end", "Assignment", "windows", [_window(minutes=0)]),
    ("a zone that there is not", "Assignment", "windows", [_window(timezone="Mars/Base")]),
    ("more than 16 windows", "Assignment", "windows", [_window()] * 17),
    ("an urgency that there is not", "Assignment", "mode", {"urgency": "now"}),
    ("forced at no time", "Assignment", "mode", {"urgency": "time_forced"}),
    ("an id of another kind", "ExecReport", "execution", ROLLOUT),
    ("a boot id that is too short", "Birth", "boot", "0f"),
    ("session 0", "Birth", "session", 0),
    ("a time that runs backwards", "Birth", "uptime", -1),
    ("no hardware", "Birth", "hardware", None),
    ("a time without a zone", "BenchReport", "at", "2026-06-01T12:00:00"),
    ("a name with an underscore", "BenchReport", "model", "my_model"),
    ("a time before 1970", "TimeReply", "at", -1.0),
    ("no figures", "BenchReport", "benchmarks", []),
    ("another name than a metadata file has", "MetadataAsk", "name", "../root.json"),
    ("a version with a leading zero", "MetadataAsk", "name", "01.root.json"),
    ("a command that there is not", "Command", "kind", "format"),
]

RAW_BAD = [
    (
        "an infinity is none",
        "TimeReply",
        json.dumps(EXAMPLES["TimeReply"]).replace("1780315200.25", "Infinity"),
    ),
    ("NaN is no JSON", "Birth", json.dumps(EXAMPLES["Birth"]).replace("3.2", "NaN")),
    ("half a message", "Death", json.dumps(EXAMPLES["Death"])[:-1]),
    ("nothing", "Death", ""),
    ("a list", "Death", "[]"),
    ("no UTF-8 proper", "Death", '{"boot": "\\ud800", "session": 1}'),
]


def vectors() -> dict[str, dict[str, Any]]:
    """Each file's content by its name."""
    good = [("the example", kind, body) for kind, body in EXAMPLES.items()] + MORE_GOOD
    cases = [_case(name, kind, json.dumps(body), valid=True) for name, kind, body in good]
    for name, kind, field, value in BAD:
        cases.append(_case(name, kind, json.dumps({**EXAMPLES[kind], field: value}), valid=False))
    cases += [_case(name, kind, text, valid=False) for name, kind, text in RAW_BAD]
    return {"messages.json": {"cases": cases}, "texts.json": {"cases": _texts()}}


def _case(name: str, kind: str, text: str, *, valid: bool) -> dict[str, Any]:
    return {"name": f"{kind}: {name}", "type": kind, "json": text, "valid": valid}


def _texts() -> list[dict[str, Any]]:
    key = ec.derive_private_key(int(SHA, 16), ec.SECP256R1())
    public = key.public_key()
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    spki = hashlib.sha256(der).hexdigest()
    signed_at = "2026-06-01T12:00:00Z"
    text = renewal_text(DEVICE, CSR, signed_at)
    signature = key.sign(text, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    return [
        {
            "name": "a join token",
            "token": str(TOKEN),
            "id": TOKEN.id,
            "secret": TOKEN.secret,
            "ca_sha256": TOKEN.ca_sha256,
            "root_sha256": TOKEN.root_sha256,
        },
        {
            "name": "the fingerprint of a key",
            "spki_der": der.hex(),
            "spki_sha256": spki,
            "fingerprint": fingerprint(spki),
        },
        {"name": "the digest of a request", "csr_pem": CSR, "csr_sha256": CSR_SHA},
        {
            "name": "what is signed for a renewal by HTTPS",
            "device": DEVICE,
            "signed_at": signed_at,
            "csr_pem": CSR,
            "text": text.decode(),
            "text_sha256": hashlib.sha256(text).hexdigest(),
            "public_key_pem": pem.decode(),
            "signature": signature.hex(),
        },
    ]
